"""`data export`: what is written, what is left out, and that the way back gives the same rows."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from feedback import workspace as workspaces
from feedback.curation.build import build
from feedback.curation.splits import SPLITS, split_of
from feedback.errors import UserError
from feedback.formats import EXPORTS, export_version, import_file
from feedback.schema import Demonstration, Message, PreferencePair, user_message
from feedback.versions import DatasetVersion, write
from feedback.workspace import Workspace

HOSTILE = '=HYPERLINK("http://x")\r\n"quoted", <b>é\0😀\u2028'
TALK = (
    Message(role="user", content="Hi"),
    Message(role="assistant", content=" Hello "),
    Message(role="user", content="Who?\n\nMe?"),
)
SYSTEM = Message(role="system", content="Be brief.")


def pair(prompt: tuple[Message, ...], chosen: str, rejected: str, probability: float = 1.0) -> PreferencePair:
    return PreferencePair(prompt=prompt, chosen=chosen, rejected=rejected, probability=probability, judgements=("j",))


def shown(prompt: tuple[Message, ...], completion: str) -> Demonstration:
    return Demonstration(prompt=prompt, completion=completion, provenance="rewrite:j")


PLAIN = [pair(user_message("@who?"), "Ada", "Bob"), pair(user_message("+1"), HOSTILE, "-2"), pair(TALK, "Ada\n", "")]
SHOWN = [shown(user_message("@who?"), "Ada"), shown((SYSTEM, *TALK), HOSTILE)]


def version_of(
    workspace: Workspace,
    pairs: Sequence[PreferencePair] = (),
    demonstrations: Sequence[Demonstration] = (),
) -> DatasetVersion:
    fractions = (0.4, 0.3, 0.3)
    return write(
        workspace,
        "d",
        {split: [p for p in pairs if split_of(p.prompt, fractions) == split] for split in SPLITS},
        {split: [d for d in demonstrations if split_of(d.prompt, fractions) == split] for split in SPLITS},
        [],
        {"dropped": {}, "collections": [], "raters": []},
    )[0]


def rows_of(version: DatasetVersion) -> tuple[Counter[Any], Counter[Any]]:
    """Pairs and demonstrations without the ids that they stand on."""
    pairs: Counter[Any] = Counter()
    demonstrations: Counter[Any] = Counter()
    for split in SPLITS:
        for row in version.pairs(split):
            probability = round(row["probability"], 12)
            pairs[json.dumps(row["prompt"]), row["chosen"], row["rejected"], probability] += 1
        for row in version.demonstrations(split):
            demonstrations[json.dumps(row["prompt"]), row["completion"]] += 1
    return pairs, demonstrations


def back_again(folder: Path, form: str, root: Path) -> DatasetVersion:
    """What a fresh workspace makes of exported files."""
    workspace = workspaces.create(root)
    for path in sorted(folder.iterdir()):
        assert import_file(workspace, form, path).refused == 0
    return build(workspace, "d")[0]


ROUND_TRIPS = [
    ("trl", [*PLAIN, pair((SYSTEM, *TALK), "A", "B", 2 / 3)], SHOWN),
    ("parquet", [*PLAIN, pair((SYSTEM, *TALK), "A", "B", 2 / 3)], SHOWN),
    ("openai", [*PLAIN, pair((SYSTEM, *TALK), "A", "B")], SHOWN),
    ("hh-rlhf", PLAIN, []),
    ("alpaca", [], [SHOWN[0], shown(user_message("=2+2"), HOSTILE)]),
    ("sharegpt", [], SHOWN),
    ("csv", [*PLAIN[:2], pair(user_message("Who?"), "A", "B", 0.75)], SHOWN[:1]),
]


@pytest.mark.parametrize(("form", "pairs", "demonstrations"), ROUND_TRIPS)
def test_round_trip(
    workspace: Workspace,
    tmp_path: Path,
    form: str,
    pairs: list[PreferencePair],
    demonstrations: list[Demonstration],
) -> None:
    version = version_of(workspace, pairs, demonstrations)
    result = export_version(version, form, tmp_path / "out")
    assert result.left_out == {}
    assert sorted(result.files) == sorted(path.name for path in result.folder.iterdir())
    assert sum(result.files.values()) == len(pairs) + len(demonstrations)
    assert rows_of(back_again(tmp_path / "out", form, tmp_path / "fresh")) == rows_of(version)


def test_every_format_is_covered() -> None:
    assert {form for form, _, _ in ROUND_TRIPS} == set(EXPORTS)


def test_files_are_named_by_kind_and_split(workspace: Workspace, tmp_path: Path) -> None:
    version = version_of(workspace, PLAIN, SHOWN)
    result = export_version(version, "trl", tmp_path / "out")
    expected = {f"pairs-{split}.jsonl": len(version.pairs(split)) for split in SPLITS}
    expected |= {f"demonstrations-{split}.jsonl": len(version.demonstrations(split)) for split in SPLITS}
    assert result.files == {name: count for name, count in expected.items() if count}
    text = "".join((tmp_path / "out" / name).read_text() for name in result.files)
    lines = [json.loads(line) for line in text.split("\n") if line]
    assert {
        "prompt": [{"role": "user", "content": "@who?"}],
        "chosen": [{"role": "assistant", "content": "Ada"}],
        "rejected": [{"role": "assistant", "content": "Bob"}],
        "probability": 1.0,
    } in lines


def test_csv_cells_are_quoted_and_left_as_they_are(workspace: Workspace, tmp_path: Path) -> None:
    result = export_version(version_of(workspace, PLAIN[1:2]), "csv", tmp_path / "out")
    (name,) = result.files
    with (tmp_path / "out" / name).open(newline="") as file:
        assert list(csv.reader(file)) == [["prompt", "chosen", "rejected", "probability"], ["+1", HOSTILE, "-2", "1.0"]]
    assert (tmp_path / "out" / name).read_text().startswith('"prompt","chosen"')


def test_what_a_format_has_no_place_for_is_said(workspace: Workspace, tmp_path: Path) -> None:
    spoken = pair(user_message("Q\n\nHuman: me"), "A", "B")
    version = version_of(workspace, [*PLAIN, spoken, pair((SYSTEM, *TALK), "A", "B", 0.75)], SHOWN)
    several = "holds one question, not a conversation of several turns"
    assert {form: export_version(version, form, tmp_path / form).left_out for form in EXPORTS} == {
        "trl": {},
        "parquet": {},
        "openai": {"probabilities below 1: openai has no place for them": 1},
        "hh-rlhf": {
            "pairs: hh-rlhf has no system turn": 1,
            "pairs: a text that hh-rlhf would read as another turn": 1,
            "demonstrations: hh-rlhf has no place for them": 2,
        },
        "alpaca": {"pairs: alpaca has no place for them": 5, f"demonstrations: alpaca {several}": 1},
        "sharegpt": {"pairs: sharegpt has no place for them": 5},
        "csv": {f"pairs: csv {several}": 2, f"demonstrations: csv {several}": 1},
    }


def test_mistakes(workspace: Workspace, tmp_path: Path) -> None:
    version = version_of(workspace, PLAIN)
    with pytest.raises(UserError, match="format 'pandalm': there are trl, openai, hh-rlhf, alpaca, sharegpt, csv, par"):
        export_version(version, "pandalm", tmp_path / "out")
    with pytest.raises(UserError, match=r"dataset d@v1: no row can be exported as alpaca \(pairs: alpaca has no place"):
        export_version(version, "alpaca", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        export_version(version, "trl", tmp_path / "file" / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "workspace"]
    export_version(version, "trl", tmp_path / "out")
    before = (tmp_path / "out").stat()
    with pytest.raises(UserError, match="exists already; name a folder that does not"):
        export_version(version, "csv", tmp_path / "out")
    assert (tmp_path / "out").stat() == before
