"""Real files, with every count taken from the raw file by other means than the readers'."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from feedback.curation.build import build
from feedback.formats import import_file
from feedback.workspace import Workspace


def raw(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def refused_lines(path: Path | None) -> list[int]:
    assert path is not None
    return [json.loads(line)["line"] for line in path.read_text().splitlines()]


def test_pandalm(workspace: Workspace, shared_data: Path) -> None:
    path = shared_data / "pandalm" / "human_pairs.jsonl"
    rows = raw(path)
    votes: defaultdict[Any, list[int]] = defaultdict(list)
    for row in rows:
        # 1 for the answer that sorts first, -1 for the other, whichever number it has in the row.
        first, second = str(row["response1"]), str(row["response2"])
        sign = 1 if first < second else -1
        key = (row["instruction"], row["input"], *sorted((first, second)))
        votes[key] += [sign * {0: 0, 1: 1, 2: -1}[row[f"annotator{i}"]] for i in (1, 2, 3)]
    expected = Counter(
        "pair" if sum(v) and key[2 if sum(v) > 0 else 3].strip()
        else "empty chosen answer" if sum(v)
        else "conflict" if any(v)
        else "tie"
        for key, v in votes.items()
    )  # fmt: skip

    result = import_file(workspace, "pandalm", path)
    assert (result.rows, result.refused) == (len(rows), 0)
    assert result.added == {"candidates": len(rows), "judgements": 3 * len(rows), "demonstrations": 0}
    again = import_file(workspace, "pandalm", path)
    assert sum(again.added.values()) == 0
    assert again.known == result.added

    version, _ = build(workspace, "pandalm")
    pairs = expected.pop("pair")
    assert pairs > 500
    assert version.summary["pairs"] == pairs
    assert version.summary["dropped"] == expected
    stated = [(f"annotator{i}", "human", len(rows)) for i in (1, 2, 3)]
    assert version.manifest["raters"] == stated


def test_hh_rlhf(workspace: Workspace, shared_data: Path) -> None:
    path = shared_data / "hh-rlhf" / "harmless.jsonl"
    rows = raw(path)
    expected: dict[int, tuple[str, str]] = {}
    for number, row in enumerate(rows, 1):
        before, _, chosen = row["chosen"].rpartition("\n\nAssistant:")
        other, _, rejected = row["rejected"].rpartition("\n\nAssistant:")
        if before == other and chosen.strip():
            expected[number] = (chosen.removeprefix(" "), rejected.removeprefix(" "))
    bad = [number for number in range(1, len(rows) + 1) if number not in expected]
    assert len(expected) > 1200

    result = import_file(workspace, "hh-rlhf", path)
    assert (result.rows, result.refused) == (len(rows), len(bad))
    assert refused_lines(result.rejects) == bad
    assert result.added == {"candidates": len(expected), "judgements": len(expected), "demonstrations": 0}
    assert sum(import_file(workspace, "hh-rlhf", path).added.values()) == 0

    version, _ = build(workspace, "hh")
    assert version.summary["dropped"] == {}
    built = Counter(
        (row["chosen"], row["rejected"]) for split in ("train", "validation", "test") for row in version.pairs(split)
    )
    assert built == Counter(expected.values())
    turns = sum(len(row["prompt"]) for split in ("train", "validation", "test") for row in version.pairs(split))
    markers = ("\n\nHuman:", "\n\nAssistant:")
    assert turns == sum(rows[number - 1]["chosen"].count(marker) for number in expected for marker in markers) - len(
        expected
    )


def test_llmbar(workspace: Workspace, shared_data: Path) -> None:
    path = shared_data / "llmbar" / "pairs.jsonl"
    rows = raw(path)
    good = [row for row in rows if row["output_1"] != row["output_2"]]
    won = {(row["input"], row[f"output_{row['label']}"], row[f"output_{3 - row['label']}"]) for row in good}
    assert not any((question, loser, winner) in won for question, winner, loser in won)

    result = import_file(workspace, "llmbar", path)
    assert (result.rows, result.refused) == (len(rows), len(rows) - len(good))
    assert refused_lines(result.rejects) == [n for n, row in enumerate(rows, 1) if row["output_1"] == row["output_2"]]
    assert result.added == {"candidates": len(good), "judgements": len(good), "demonstrations": 0}

    version, _ = build(workspace, "llmbar")
    assert version.summary["dropped"] == {}
    built = {
        (row["prompt"][0]["content"], row["chosen"], row["rejected"])
        for split in ("train", "validation", "test")
        for row in version.pairs(split)
    }
    assert built == won
    assert version.summary["pairs"] == len(won)
