"""Checks as a part of an evaluation: drawn on both sides, compared pairwise, and asked for by name or by settings."""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from evaluation import checks, resampling
from evaluation.checks import Checks
from evaluation.hallucination.entailment import Verdict
from evaluation.harness import Answer, Side
from evaluation.results import read_samples
from evaluation.suites import evaluate
from evaluation.task_sources import TaskSource
from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import SETTINGS_FILE, Workspace
from training.launch import train
from training.runs import Run

BOTH = ("consistency", "semantic_entropy")
TASK = TaskSource("held_out", "closed_book", Path("held_out.jsonl"))


def quiet(line: str) -> None:
    pass


@pytest.fixture
def run(workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path) -> Run:
    rows = [{"question": f"{n} + 1?", "answers": [str(n + 1)]} for n in range(4)]
    (workspace.root / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings(workspace)
    return train(workspace, "sft", ["dataset=sums", f"model={tiny_model}", "max_steps=8", "learning_rate=2e-2"], quiet)


def settings(workspace: Workspace, *lines: str) -> None:
    text = "\n".join(["[evaluation]", 'questions = ["held_out.jsonl"]', *lines])
    (workspace.root / SETTINGS_FILE).write_text(text)
    workspace.__dict__.pop("settings", None)


def answer(text: str) -> Answer:
    return Answer({"question": "Where?"}, "hash", "Where?", text, 0.5, {})


def made(monkeypatch: pytest.MonkeyPatch, workspace: Workspace, samples: Sequence[str]) -> dict[str, float]:
    """What the checks say of the answer "Rome." where these samples are drawn."""
    monkeypatch.setattr(resampling, "sample_encoded", lambda side, prompts, count, *_: [list(samples)] * len(prompts))
    monkeypatch.setattr(resampling, "_encoded", lambda side, prompt: [1])
    monkeypatch.setattr(TaskSource, "config", {"generation_kwargs": {"until": ["\n"]}})
    (judged,) = Checks(BOTH, workspace).judge(
        Side("fake", type("Model", (), {"config": None}), None, nullcontext), TASK, [answer("Rome.")], 8, None, quiet
    )
    return judged.metrics


def test_scores_are_those_of_the_methods(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    import math

    same = made(monkeypatch, workspace, ["Rome.\nQ: next", "Rome", "in Rome", "rome"])
    # The answer's words are `rome` and `.`; the texts have 5 of the one, 2 of the other, and `in`: 8 in all.
    assert same["inconsistency"] == pytest.approx(-math.log(2 / 8))
    assert same["semantic_entropy"] == 0
    varied = made(monkeypatch, workspace, ["Rome", "Oslo", "I don't know.", "I am not sure."])
    assert varied["semantic_entropy"] == pytest.approx(-(0.5 * math.log(0.5) + 0.5 * math.log(0.25)))
    assert "contradiction" not in varied


def test_an_entailment_model_tells_contradiction(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    def verdicts(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        assert all(text.startswith("Where? ") for pair in pairs for text in pair)
        return [Verdict(0.9, 0.0, 0.1) if one == two else Verdict(0.1, 0.0, 0.9) for one, two in pairs]

    monkeypatch.setattr(Checks, "entailment", staticmethod(verdicts))
    settings(workspace, 'entailment = "nli"')
    found = made(monkeypatch, workspace, ["Rome.", "Rome.", "Oslo.", "Rome."])
    assert found["contradiction"] == pytest.approx((3 * 0.1 + 0.9) / 4)
    assert found["semantic_entropy"] == pytest.approx(0.5623, abs=1e-4)


def test_a_check_asked_for_by_name_is_compared_and_kept(
    workspace: Workspace, run: Run, veritune: Callable[..., Any]
) -> None:
    command = ["--workspace", workspace.root, "eval", run.id, "--json"]
    found = veritune(*command, "--check", "consistency", "--check", "semantic_entropy")
    compared = {c["metric"]: c for c in found["comparisons"] if c["task"] == "held_out"}
    assert compared["semantic_entropy"]["higher_is_better"] is False
    samples = [s for s in read_samples(workspace.reports / found["report_id"]) if s.task == "held_out"]
    for metric in ("inconsistency", "semantic_entropy"):
        values = [s.tuned_metrics[metric] for s in samples]
        assert compared[metric]["tuned"] == pytest.approx(sum(v for v in values if v is not None) / len(values))
    assert any("5 more answers to each question at temperature 1" in note for note in found["notes"])
    assert "inconsistency" not in {c["metric"] for c in veritune(*command)["comparisons"]}


def test_a_model_is_as_consistent_as_itself(workspace: Workspace, run: Run) -> None:
    settings(workspace, "samples = 3", "temperature = 0.7")
    for comparison in evaluate(workspace, run.id, run.id, report=quiet, named_checks=BOTH).comparisons:
        assert (comparison.difference, comparison.p_value) == (0, 1)


def test_what_was_drawn_is_not_drawn_again(workspace: Workspace, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    real = resampling.sample_encoded

    def counting(side: Side, prompts: Any, count: int, *rest: Any) -> list[list[str]]:
        drawn.append(count * len(prompts))
        return real(side, prompts, count, *rest)

    monkeypatch.setattr(resampling, "sample_encoded", counting)
    settings(workspace, "samples = 2")

    def figures(**given: Any) -> list[tuple[float, float]]:
        results = evaluate(workspace, run.id, report=quiet, named_checks=BOTH, batch_size=4, **given)
        return [(c.base, c.tuned) for c in results.comparisons if c.task == "held_out"]

    first = figures()
    # 4 questions twice on each of two sides, two questions to a batch of 4 answers.
    assert drawn == [4] * 4
    assert figures() == first
    assert len(drawn) == 4
    assert figures(cached=False) == first
    assert len(drawn) == 8


def test_settings_put_checks_into_the_larger_suites_only(workspace: Workspace) -> None:
    settings(workspace, "samples = 3")
    assert checks.chosen(workspace, "truthful", []).names == BOTH
    assert checks.chosen(workspace, "quick", []).names == ()
    assert checks.chosen(workspace, "quick", ["semantic_entropy"]).names == ("semantic_entropy",)
    with pytest.raises(UserError, match="--check truth: no such check"):
        checks.chosen(workspace, "quick", ["truth"])
    settings(workspace, "samples = 1")
    with pytest.raises(UserError, match=r"evaluation\.samples"):
        checks.chosen(workspace, "quick", [])
