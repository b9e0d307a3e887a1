"""Containers: what a file holds, row by row, and what hostile ones can't do."""

import csv
import gzip
import json
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import UserError
from feedback.formats import rows as rows_module
from feedback.formats.rows import Row, read_rows


def read(path: Path, data: str | bytes) -> list[Row]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(read_rows(str(path)))


def seen(rows: list[Row]) -> list[tuple[int, object]]:
    return [(row.number, row.value if row.value is not None else row.reason) for row in rows]


def test_json_lines_keep_their_numbers(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.jsonl", '\ufeff{"a": 1}\r\n\r\n   \n{"a": "é\\u0000"}\nnot json\n[1]\n{"a": 2}')
    assert seen(rows) == [
        (1, {"a": 1}),
        (4, {"a": "é\0"}),
        (5, "not JSON (Expecting value)"),
        (6, "not an object with named fields"),
        (7, {"a": 2}),
    ]
    assert rows[2].text == "not json\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": "\\ud800"}', "holds characters that are not valid Unicode"),
        (b'{"\\udfff": 1}', "holds characters that are not valid Unicode"),
        (b'{"a": "\xff\xfe"}', "holds characters that are not valid Unicode"),
        (b'{"a": "\x00"}', "not JSON (Invalid control character at)"),
        (b'{"a": NaN}', "holds a number that is not finite (NaN or infinite)"),
        (b'{"a": 1e999}', "holds a number that is not finite (NaN or infinite)"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON (a number of too many digits)"),
        (b'{"a": ' + b"[" * 30 + b"]" * 30 + b"}", "nested more than 20 deep"),
        (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "not JSON (nested too deep)"),
        (b'{"a": 1, "b": }', "not JSON (Expecting value)"),
    ],
)
def test_a_hostile_line_is_refused_alone(tmp_path: Path, line: bytes, reason: str) -> None:
    good = b'{"a good": "row"}\n'
    rows = read(tmp_path / "a.jsonl", good + line + b"\n" + good)
    assert [row.number for row in rows] == [1, 2, 3]
    assert (rows[1].value, rows[1].reason) == (None, reason)
    assert rows[0].value
    assert rows[0].value == rows[2].value
    json.dumps(rows[1].text).encode()


def test_pairs_of_surrogates_are_one_character(tmp_path: Path) -> None:
    assert seen(read(tmp_path / "a.jsonl", '{"a": "\\ud83d\\ude00"}')) == [(1, {"a": "😀"})]


def test_json_array(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.json", '[{"a": 1},\n 7, {"a": "\\ud800"}, {"a": 2}]')
    assert seen(rows) == [
        (1, {"a": 1}),
        (2, "not an object with named fields"),
        (3, "holds characters that are not valid Unicode"),
        (4, {"a": 2}),
    ]
    assert {row.unit for row in rows} == {"row"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{"a": 1}\n{"a": 2}', r"not JSON \(Extra data\); if it holds one object a line, name it .jsonl"),
        ('{"a": 1}', "not a JSON array of objects"),
        ("[" * 200_000, "not JSON"),
        ("", "not JSON"),
    ],
)
def test_json_that_is_no_array(tmp_path: Path, data: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.json", data)


def test_csv_with_bom_crlf_quotes_and_empty_lines(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.CSV", '\ufeffa,b\r\n1,"two\r\nlines, ""quoted"""\r\n\r\n3\r\n4,5,6\r\n,NUL\0\r\n')
    assert seen(rows) == [
        (2, {"a": "1", "b": 'two\r\nlines, "quoted"'}),
        (5, "1 fields, where the header names 2"),
        (6, "3 fields, where the header names 2"),
        (7, {"a": "", "b": "NUL\0"}),
    ]


def test_an_unclosed_quote_is_no_silent_loss(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.csv", 'a,b\n1,2\n3,"open\n5,6\n')
    assert seen(rows) == [(2, {"a": "1", "b": "2"}), (3, "not CSV (unexpected end of data)")]


def test_csv_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.csv", b"a,b\n" + b"x,y\n" * 20 + b"\xe9,1\n2,3\n")
    assert seen(rows)[-2:] == [(22, "holds characters that are not valid Unicode"), (23, {"a": "2", "b": "3"})]


def test_repeated_columns_would_hide_one_another(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the column 'a' stands there twice"):
        read(tmp_path / "a.csv", "a,b,a\n1,2,3\n")


def test_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"a": 1}\n{"a": 2}\n')
    assert seen(read(tmp_path / "a.jsonl.gz", whole)) == [(1, {"a": 1}), (2, {"a": 2})]
    with pytest.raises(UserError, match="can't be read"):
        read(tmp_path / "b.jsonl.gz", whole[:-9])
    with pytest.raises(UserError, match="can't be read"):
        read(tmp_path / "c.jsonl.gz", b"no gzip at all")


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values: list[dict[str, Any]] = [
        {"a": "x", "list": [{"role": "user"}], "day": date(2024, 5, 1), "score": 1.5, "bytes": None},
        {"a": None, "list": None, "day": None, "score": float("nan"), "bytes": None},
        {"a": "y", "list": [], "day": None, "score": None, "bytes": b"raw"},
    ]
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "a.parquet")
    assert seen(list(read_rows(str(tmp_path / "a.parquet")))) == [
        (1, values[0] | {"day": "2024-05-01"}),
        (2, "holds a number that is not finite (NaN or infinite)"),
        (3, "holds a value of type bytes, which is neither text nor a number"),
    ]
    with pytest.raises(UserError, match="can't be read as Parquet"):
        read(tmp_path / "b.parquet", b"PAR1 no more")


def test_a_line_that_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    assert rows_module.LINE_LIMIT == 16 * 2**20
    # The reader tells the csv module its limit, which is every other reader's in this process too.
    request.addfinalizer(partial(csv.field_size_limit, csv.field_size_limit()))
    monkeypatch.setattr(rows_module, "LINE_LIMIT", 20)
    assert len(read(tmp_path / "a.jsonl", '{"a": "0123456789"}\n' * 2)) == 2
    for name, data in {
        "a.jsonl": '{"a": 1}\n{"a": "0123456789 "}\n',
        "a.csv": "a,b\n1,0123456789012345678901\n",
    }.items():
        with pytest.raises(UserError, match="line 2 is longer than 20 characters"):
            read(tmp_path / name, data)


def test_an_array_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "ARRAY_LIMIT", 10)
    with pytest.raises(UserError, match="longer than 10 characters; write it as JSON Lines"):
        read(tmp_path / "a.json", '[{"a": "b"}]')


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"\x89PNG\r\n\x1a\n", "not UTF-8 text"),
        ("a.csv", b"SQLite format 3\0", r"not text \(byte 15 is NUL\)"),
        ("a.json", '[{"a": 1}]'.encode("utf-16"), "not UTF-8 text"),
        ("a.xlsx", b"PK", "the suffix is none of .jsonl, .json, .csv"),
        ("a", b"{}", "the suffix is none of"),
        ("a.gz", b"{}", "the suffix is none of"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / name, data)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.jsonl: no such file"):
        read_rows(str(tmp_path / "nothing.jsonl"))
    with pytest.raises(UserError, match="a folder; name one file in it"):
        read_rows(str(tmp_path))


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load_dataset(name: str, split: str, streaming: bool) -> list[dict[str, str]]:
        asked.append((name, split, streaming))
        return [{"a": "b"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert seen(list(read_rows("hub:owner/name"))) == [(1, {"a": "b"})]
    assert seen(list(read_rows("hub:owner/name:test_prefs"))) == [(1, {"a": "b"})]
    assert asked == [("owner/name", "train", True), ("owner/name", "test_prefs", True)]


@pytest.mark.parametrize("source", ["hub:name", "hub:../secret", "hub:owner/..", "hub:owner/name:", "hub:/etc/passwd"])
def test_hub_names(source: str) -> None:
    with pytest.raises(UserError, match="write a hub data set as hub:OWNER/NAME"):
        list(read_rows(source))


def test_hub_out_of_reach() -> None:
    with pytest.raises(UserError, match="hub:nobody/nothing: can't be loaded"):
        list(read_rows("hub:nobody/nothing"))
