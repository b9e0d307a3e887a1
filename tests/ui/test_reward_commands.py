"""A reward model on the command line: trained, and then a judge of a collection."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.database import Database
from feedback.scoring import SOURCE
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace

Veritune = Callable[..., Any]


def test_a_reward_run_says_how_good_it_is_and_judges_a_collection(
    veritune: Veritune,
    workspace: Workspace,
    small_dataset: DatasetVersion,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(workspace.root)
    ended = veritune("train", "reward", "dataset=sums", f"model={tiny_model}", "max_steps=2")
    assert ended.status == 0
    said = next(line for line in ended.lines if "held-out pairs" in line)
    assert "prefers the better answer in" in said
    assert "going by length alone would be right in" in said
    assert ended.lines[-1] == "reward-1 finished; next: veritune feedback judge COLLECTION --model reward-1"
    card = (workspace.runs / "reward-1" / "MODEL_CARD.md").read_text()
    assert said in card

    assert veritune("feedback", "judge", "sums", "--model", "reward-1", "--json")["new"] == 60
    ended = veritune("feedback", "judge", "sums", "--model", "reward-1")
    assert ended.lines[-1] == "'sums': 0 new judgements by scores of reward-1, 0 of them ties (60 stood already)"
    with Database(workspace.database) as database:
        by_model = [j for j in database.judgements(["sums"]) if j.source == SOURCE]
    assert {(j.rater.kind, j.rater.name) for j in by_model} == {("ai", "reward-1")}
    assert all(0.5 <= j.probability <= 1 for j in by_model)

    for arguments, words in (
        (["sums", "--reasoning"], "a reward run, which goes by no principle; leave out --reasoning"),
        (["--evaluate", "llmbar:x.jsonl"], "a reward run, which goes by no principle; leave out --evaluate"),
    ):
        ended = veritune("feedback", "judge", "--model", "reward-1", *arguments)
        assert ended.status == 2
        assert words in ended.lines[-1]
    ended = veritune("eval", "reward-1")
    assert ended.status == 2
    assert "run reward-1: a reward model, which judges answers and writes none" in ended.lines[-1]
