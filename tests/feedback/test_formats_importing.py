"""`feedback import`: what goes in, what is refused and where it stays."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from feedback.database import Database
from feedback.errors import UserError
from feedback.formats import import_file
from feedback.formats import importing as importing_module
from feedback.schema import Candidate, Judgement
from feedback.workspace import Workspace

FIXTURES = Path(__file__).parent / "fixtures"
NOTHING = {"candidates": 0, "judgements": 0, "demonstrations": 0}


def write_lines(path: Path, *rows: Mapping[str, Any] | str) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def pair(prompt: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def stored(workspace: Workspace, collection: str = "main") -> list[tuple[Candidate, Judgement]]:
    with Database(workspace.database) as database:
        candidates = {candidate.id: candidate for candidate in database.candidates([collection])}
        return [(candidates[j.candidate_id], j) for j in database.judgements([collection])]


def refusals(path: Path | None) -> list[tuple[int, str]]:
    assert path is not None
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(entry.keys() == {"line", "reason", "text"} for entry in entries)
    return [(entry["line"], entry["reason"]) for entry in entries]


def test_good_rows_go_in_and_bad_ones_stay_with_their_reason(workspace: Workspace, tmp_path: Path) -> None:
    source = write_lines(
        tmp_path / "mixed.jsonl",
        pair("Who?", "Ada", "Bob"),
        '{"prompt": "Who?" "chosen"}',
        "",
        pair("Same?", "Yes", "Yes"),
        {"prompt": "Show me", "completion": "Here"},
        pair("Long?", "", "x" * 5000),
    )
    result = import_file(workspace, "trl", source)
    assert (result.rows, result.refused) == (5, 3)
    assert result.added == {"candidates": 1, "judgements": 1, "demonstrations": 1}
    assert result.known == NOTHING
    assert refusals(result.rejects) == [
        (2, "not JSON (Expecting ',' delimiter)"),
        (4, "chosen and rejected are the same text"),
        (6, "chosen is empty"),
    ]
    assert result.rejects is not None
    assert result.rejects.parent == workspace.root / "rejects"
    texts = [json.loads(line)["text"] for line in result.rejects.read_text().splitlines()]
    assert texts[0] == '{"prompt": "Who?" "chosen"}\n'
    assert len(texts[2]) == 2000
    ((candidate, judgement),) = stored(workspace)
    assert candidate.responses[judgement.preferred].text == "Ada"  # type: ignore[index]


def test_the_same_import_twice_adds_nothing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing_module, "BATCH_ROWS", 2)
    rows = [pair(f"Q{i}", "A", "B", margin=i) for i in range(5)] + [{"prompt": "Q", "completion": "A"}]
    source = write_lines(tmp_path / "a.jsonl", *rows, rows[0])
    whole = {"candidates": 5, "judgements": 5, "demonstrations": 1}
    first = import_file(workspace, "trl", source)
    assert (first.added, first.known) == (whole, {"candidates": 1, "judgements": 1, "demonstrations": 0})
    before = stored(workspace)
    again = import_file(workspace, "trl", source)
    assert (again.added, again.known) == (NOTHING, {"candidates": 6, "judgements": 6, "demonstrations": 1})
    assert (again.rows, again.refused, again.rejects) == (7, 0, None)
    assert stored(workspace) == before
    assert len({judgement.created_at for _, judgement in before}) == 1
    elsewhere = import_file(workspace, "trl", source, into="other")
    assert elsewhere.added == whole


def test_contradictory_rows(workspace: Workspace, tmp_path: Path) -> None:
    source = write_lines(
        tmp_path / "a.jsonl",
        pair("Q", "A", "B"),
        pair("Q", "B", "A"),
        pair("Q", "B", "A", rater="ada"),
        pair("Q", "A", "B", rater="ada", probability=0.9),
        pair("Q", "A", "B"),
    )
    for _ in range(2):
        result = import_file(workspace, "trl", source)
        assert refusals(result.rejects) == [
            (2, "trl judges the same answers otherwise in line 1"),
            (4, "ada judges the same answers otherwise in line 3"),
        ]
        said = {
            judgement.rater.name: candidate.responses[judgement.preferred].text  # type: ignore[index]
            for candidate, judgement in stored(workspace)
        }
        assert said == {"trl": "A", "ada": "B"}
    assert result.added == NOTHING


def test_a_corrected_file_replaces_what_the_rater_said(workspace: Workspace, tmp_path: Path) -> None:
    import_file(workspace, "trl", write_lines(tmp_path / "a.jsonl", pair("Q", "A", "B")))
    result = import_file(workspace, "trl", write_lines(tmp_path / "b.jsonl", pair("Q", "B", "A")))
    assert result.added == NOTHING | {"judgements": 1}
    ((candidate, judgement),) = stored(workspace)
    assert candidate.responses[judgement.preferred].text == "B"  # type: ignore[index]


def test_a_csv_with_a_column_map(workspace: Workspace) -> None:
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad", "rater": "who", "rater_kind": "kind"}
    result = import_file(workspace, "csv", FIXTURES / "preferences.csv", columns=columns, rater="team")
    assert refusals(result.rejects) == [
        (6, "2 fields, where the header names 6"),
        (7, "chosen and rejected are the same text"),
        (8, 'rater_kind is "robot", not human, ai or script'),
    ]
    found = stored(workspace)
    assert [(j.rater.kind, j.rater.name) for _, j in found] == [
        ("human", "ada"),
        ("human", "team"),
        ("script", "lint"),
    ]
    assert [c.prompt[0].content for c, _ in found][1] == "Which planet has rings,\nand why?"
    assert [c.responses[j.preferred].text for c, j in found] == ["Mars.", "Saturn, of ice.", "=SUM(1)"]  # type: ignore[index]
    assert [c.metadata for c, _ in found] == [{"columns": {"note": n}} for n in ("easy", 'a "hard" one', "formula")]


def test_parquet_with_a_column_map(workspace: Workspace, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"q": "Who?", "a": "Ada", "c": "A list."}, {"q": None, "a": "Bob", "c": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    columns = {"prompt": "q", "completion": "a", "context": "c"}
    result = import_file(workspace, "parquet", tmp_path / "a.parquet", columns=columns)
    assert refusals(result.rejects) == [(2, "prompt is missing")]
    with Database(workspace.database) as database:
        (demonstration,) = database.demonstrations(["main"])
    assert demonstration.prompt[0].content == "A list.\n\nWho?"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "no columns prompt, chosen and rejected, or prompt and completion; there are 'question', 'good', 'bad'"),
        ({"prompt": "question", "chosen": "god", "rejected": "bad"}, "no column 'god'; there are 'question', 'good'"),
        ({"prompt": "question", "chosen": "good"}, "no columns prompt, chosen and rejected"),
        ({"promt": "question"}, "columns: no field 'promt'; there are prompt, chosen, rejected, completion"),
    ],
)
def test_columns_that_are_not_there(workspace: Workspace, columns: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        import_file(workspace, "csv", FIXTURES / "preferences.csv", columns=columns)
    assert len(caught.value.lines) == 1
    assert stored(workspace) == []


def test_nothing_usable(workspace: Workspace, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "a.jsonl", *[pair("Q", "", "B")] * 5)
    with pytest.raises(UserError) as caught:
        import_file(workspace, "trl", source)
    (rejects,) = (workspace.root / "rejects").iterdir()
    assert str(caught.value) == (
        f"{source}: none of its rows can be used as trl (line 1: chosen is empty; line 2: chosen is empty; "
        f"line 3: chosen is empty; ...); all 5 are in {rejects}"
    )
    assert len(refusals(rejects)) == 5


def test_no_rows(workspace: Workspace, tmp_path: Path) -> None:
    for name, text in {"a.jsonl": "\n\n", "a.csv": "prompt,completion\n", "a.json": "[]"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match="no rows in it"):
            import_file(workspace, "trl", tmp_path / name)


def test_all_wrong_arguments_together(workspace: Workspace) -> None:
    with pytest.raises(UserError) as caught:
        import_file(workspace, "jsonl", "nothing.jsonl", into="../up", columns={"x": "y"})
    assert [line.split(":")[0] for line in caught.value.lines] == [
        "format 'jsonl'",
        "collection name '../up'",
        "columns",
    ]
    assert "hh-rlhf, ultrafeedback, pandalm, llmbar" in caught.value.lines[0]
    with pytest.raises(UserError, match="hh-rlhf rows have names of their own"):
        import_file(workspace, "hh-rlhf", "nothing.jsonl", columns={"prompt": "y"})
    with pytest.raises(UserError, match="pandalm rows name their raters"):
        import_file(workspace, "pandalm", "nothing.jsonl", rater="ada")
    with pytest.raises(UserError, match=r"nothing\.jsonl: no such file"):
        import_file(workspace, "trl", "nothing.jsonl")


@pytest.mark.parametrize(
    "name", ["..\\..\\etc.jsonl", ".hidden.jsonl", "a b\nc;$(rm).jsonl", "<img src=x>.jsonl", "é" * 100 + ".jsonl"]
)
def test_a_hostile_file_name_names_no_other_place(workspace: Workspace, tmp_path: Path, name: str) -> None:
    source = write_lines(tmp_path / name, pair("Q", "A", "B"), "{")
    result = import_file(workspace, "trl", source)
    assert result.rejects is not None
    assert list((workspace.root / "rejects").iterdir()) == [result.rejects]
    assert set(result.rejects.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not result.rejects.name.startswith(".")
    assert len(result.rejects.name) < 130


def test_a_file_that_breaks_off_leaves_no_half_rejects(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing_module, "BATCH_ROWS", 1)
    source = tmp_path / "a.jsonl"
    source.write_text('{"bad": 1}\n' * 3 + json.dumps(pair("Q", "A", "B")) + "\n" + "x" * (16 * 2**20 + 1))
    with pytest.raises(UserError, match="line 5 is longer than"):
        import_file(workspace, "trl", source)
    assert list((workspace.root / "rejects").iterdir()) == []
    assert len(stored(workspace)) == 1


def test_hostile_rows_survive_storing(workspace: Workspace, tmp_path: Path) -> None:
    text = "<script>\0\x1b[2J\u2028😀"
    deep: Any = 10**30
    for _ in range(17):
        deep = [deep]
    source = write_lines(tmp_path / "a.jsonl", pair(text, text + "!", text, deep=deep), '{"prompt": "\\ud800"}')
    result = import_file(workspace, "trl", source)
    assert refusals(result.rejects) == [(2, "holds characters that are not valid Unicode")]
    ((candidate, _),) = stored(workspace)
    assert candidate.prompt[0].content == text
    assert candidate.metadata == {"deep": deep}


def test_ultrafeedback_is_judged_by_a_model(workspace: Workspace) -> None:
    result = import_file(workspace, "ultrafeedback", FIXTURES / "ultrafeedback.jsonl")
    assert (result.rows, result.refused) == (8, 4)
    assert {(j.rater.kind, j.rater.name, j.source) for _, j in stored(workspace)} == {
        ("ai", "ultrafeedback", "import:ultrafeedback")
    }
