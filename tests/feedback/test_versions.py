"""Dataset versions: the same feedback gives the same bytes, and altered bytes are refused."""

import json
from pathlib import Path

import pytest
from datasets import Dataset

from feedback.curation.build import build
from feedback.database import Database
from feedback.errors import UserError
from feedback.schema import Demonstration, user_message
from feedback.versions import DatasetVersion, diff, load, versions_of
from feedback.workspace import Workspace


def add_one(workspace: Workspace, text: str) -> None:
    with Database(workspace.database) as database:
        demonstration = Demonstration(prompt=user_message(text), completion="yes", provenance="test")
        database.add("sums", demonstrations=[demonstration])


def test_the_same_feedback_makes_no_second_version(workspace: Workspace, small_dataset: DatasetVersion) -> None:
    again, new = build(workspace, "sums")
    assert not new
    assert again.id == small_dataset.id == "sums@v1"
    elsewhere, _ = build(workspace, "other")
    assert elsewhere.fingerprint == small_dataset.fingerprint


def test_new_feedback_makes_the_next_version_and_diff_names_it(
    workspace: Workspace, small_dataset: DatasetVersion
) -> None:
    add_one(workspace, "Is it new?")
    second, new = build(workspace, "sums")
    assert new
    assert second.id == "sums@v2"
    assert load(workspace, "sums").id == "sums@v2"
    assert load(workspace, "sums@v1").fingerprint == small_dataset.fingerprint
    changes = diff(small_dataset, second)
    assert changes["pairs"] == {"added": [], "removed": []}
    assert [row["prompt"][0]["content"] for row in changes["demonstrations"]["added"]] == ["Is it new?"]


@pytest.mark.parametrize("name", ["pairs/train.arrow", "demonstrations/test.arrow", "set_aside.jsonl"])
def test_altered_bytes_are_refused(workspace: Workspace, small_dataset: DatasetVersion, name: str) -> None:
    path = small_dataset.folder / name
    data = bytearray(path.read_bytes() or b"x")
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"dataset sums@v1: {name} in .* no longer matches"):
        load(workspace, "sums")


def test_a_missing_added_or_forged_file_is_refused(workspace: Workspace, small_dataset: DatasetVersion) -> None:
    (small_dataset.folder / "pairs" / "more.arrow").write_bytes(b"")
    with pytest.raises(UserError, match=r"pairs/more\.arrow"):
        load(workspace, "sums")
    (small_dataset.folder / "pairs" / "more.arrow").unlink()
    manifest = json.loads((small_dataset.folder / "manifest.json").read_text())
    manifest["files"]["pairs/train.arrow"] = "0" * 64
    (small_dataset.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="no longer matches"):
        load(workspace, "sums")


def test_rows_are_plain_arrow_that_other_tools_read(small_dataset: DatasetVersion) -> None:
    rows = Dataset.from_file(str(small_dataset.folder / "pairs" / "train.arrow"))
    assert rows.column_names == ["prompt", "chosen", "rejected", "probability", "judgements"]
    assert rows[0]["prompt"][0]["role"] == "user"
    assert sum(len(small_dataset.pairs(split)) for split in ("train", "validation", "test")) == 60


def test_a_crash_leaves_no_half_version(
    workspace: Workspace, small_dataset: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_one(workspace, "Is it new?")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("feedback.files.os.rename", fail)
    with pytest.raises(OSError, match="disk full"):
        build(workspace, "sums")
    assert [version.id for version in versions_of(workspace, "sums")] == ["sums@v1"]
    assert [path.name for path in (workspace.datasets / "sums").iterdir()] == ["v1"]


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden", "x" * 65])
def test_a_name_that_is_no_folder_is_refused(workspace: Workspace, small_dataset: DatasetVersion, name: str) -> None:
    with pytest.raises(UserError, match="dataset name"):
        build(workspace, name)
    with pytest.raises(UserError, match="not in this workspace"):
        load(workspace, name)


def test_the_card_repeats_the_figures(small_dataset: DatasetVersion) -> None:
    card = (Path(small_dataset.folder) / "CARD.md").read_text()
    assert "60 preference pairs and 60 demonstrations" in card
    assert "| ann | human | 60 |" in card
    assert small_dataset.fingerprint in card
