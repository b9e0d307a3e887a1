"""Several models in one table, and models that no run made: the figures that each has alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation.card import model_card
from evaluation.results import Results, read_samples
from evaluation.statistics import holm
from evaluation.suites import evaluate
from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import SETTINGS_FILE, Workspace
from training.launch import train
from training.runs import Run

KEYS = ["dataset=sums", "max_steps=4", "learning_rate=2e-2"]


def quiet(line: str) -> None:
    pass


def figures(results: Results) -> dict[tuple[str, str], tuple[float | None, ...]]:
    return {
        (c.task, c.metric): (c.n, c.base, c.tuned, c.ci_low, c.ci_high, c.p_value, c.detectable)
        for c in results.comparisons
    }


@pytest.fixture
def questions(workspace: Workspace) -> None:
    rows = [{"question": f"{n} + 1?", "answers": [str(n + 1)] if n % 3 else []} for n in range(9)]
    (workspace.root / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workspace.root / SETTINGS_FILE).write_text('[evaluation]\nquestions = ["held_out.jsonl"]\n')


@pytest.fixture
def several(workspace: Workspace, questions: None, small_dataset: DatasetVersion, tiny_model: Path) -> list[Run]:
    """Two adapters of one base, and a model of its own from the same."""
    keys = [*KEYS, f"model={tiny_model}"]
    return [train(workspace, "sft", [*keys, *more], quiet) for more in ([], ["seed=1"], ["tuning=full"])]


def test_several_models_stand_in_one_table_each_as_it_does_alone(
    workspace: Workspace, several: list[Run], veritune: Callable[..., Any]
) -> None:
    alone = {run.id: evaluate(workspace, run.id, report=quiet) for run in several}
    root = ("--workspace", str(workspace.root))
    ended = veritune(*root, "eval", *alone)
    assert ended.status == 0, ended.err
    assert "eval-4: sft-1, sft-2, sft-3 against tiny" in ended.out
    shown = veritune(*root, "report", "show", "eval-4", "--json")
    together = Results.model_validate(shown)
    assert (shown["tuned"], list(shown["also"])) == ("sft-1", ["sft-2", "sft-3"])
    for name, results in alone.items():
        of_one = together.of(name)
        assert figures(of_one) == figures(results)
        assert of_one.flips == results.flips
    p_values = [c.p_value for c in together.comparisons]
    assert [c.p_holm for c in together.comparisons] == holm(p_values)
    assert len(p_values) == 3 * len(alone["sft-1"].comparisons)

    folder = workspace.reports / "eval-4"
    samples = read_samples(folder)
    for name in alone:
        of_one = [s.model_copy(update={"model": None}) for s in samples if s.model == name]
        assert of_one == read_samples(workspace.reports / alone[name].report_id)
    page = (folder / "report.html").read_text()
    assert "<h1>sft-1, sft-2, sft-3 " in page
    assert page.count("Against tiny, sft-") + page.count("No difference between sft-") == 3
    assert "sft-2, held_out: questions with an answer" in page
    for kind in ("gained", "lost"):
        assert f"{sum(getattr(results.flips, kind) for results in alone.values())} {kind}" in page

    listed = veritune(*root, "report", "list", "--json")
    assert [(report["tuned"], report["also"]) for report in listed][-1] == ("sft-1", ["sft-2", "sft-3"])
    assert "sft-1, sft-2, sft-3" in veritune(*root, "report", "list").out
    for run in several:
        assert "eval-4, against tiny" in model_card(workspace, run)
        down = veritune(*root, "lineage", run.id, "--json")["downstream"]
        assert ("report", "eval-4") in [(link["kind"], link["id"]) for link in down]
    up = veritune(*root, "lineage", "eval-4", "--json")["upstream"]
    assert [link["id"] for link in up if link["kind"] == "run"] == ["sft-1", "sft-2", "sft-3"]
    assert len({(link["kind"], link["id"]) for link in up}) == len(up)


def test_a_gate_holds_of_each_of_several(
    workspace: Workspace, several: list[Run], veritune: Callable[..., Any]
) -> None:
    root = ("--workspace", str(workspace.root))
    ended = veritune(*root, "eval", "sft-1", "sft-2", "--fail-if", "held_out:score@0.5<9")
    assert ended.status == 3
    assert [line.split(" ")[3].rstrip(",") for line in ended.lines if line.startswith("--fail-if")] == [
        "sft-1",
        "sft-2",
    ]


def test_a_model_is_evaluated_by_its_folder(
    workspace: Workspace, several: list[Run], tiny_model: Path, veritune: Callable[..., Any]
) -> None:
    full = several[2]
    of_run = evaluate(workspace, full.id, report=quiet, tasks=())
    # As a stranger it has no held-out pairs.
    own = {key: value for key, value in figures(of_run).items() if key[0] != "preferences"}
    by_folder = evaluate(workspace, str(full.weights), against=str(tiny_model), report=quiet)
    assert (by_folder.base, by_folder.tuned) == ("tiny", full.id)
    assert figures(by_folder) == own
    turned = evaluate(workspace, str(tiny_model), against=full.id, report=quiet)
    assert (turned.base, turned.tuned) == (full.id, "tiny")
    assert {key: (base, tuned) for key, (_, tuned, base, *_) in figures(turned).items()} == {
        key: (base, tuned) for key, (_, base, tuned, *_) in own.items()
    }
    (link,) = veritune("--workspace", workspace.root, "lineage", turned.report_id, "--json")["upstream"]
    assert (link["kind"], link["id"], link["state"]) == ("model", str(tiny_model), "ok")
    of_adapter = evaluate(workspace, "sft-1", against=str(tiny_model), report=quiet)
    assert figures(of_adapter) == figures(evaluate(workspace, "sft-1", report=quiet))


def test_what_can_not_be_compared_is_said(workspace: Workspace, several: list[Run], tiny_model: Path) -> None:
    with pytest.raises(UserError, match="no run of this workspace; name what it is compared with by --against"):
        evaluate(workspace, str(tiny_model), report=quiet)
    with pytest.raises(UserError, match="model 'nothing-here': neither a model folder nor"):
        evaluate(workspace, "sft-1", against="nothing-here", report=quiet)
    on_full = train(workspace, "sft", [*KEYS, "parent=sft-3"], quiet)
    with pytest.raises(UserError, match="trained on different models, sft-1 on tiny, sft-4 on sft-3; name the one"):
        evaluate(workspace, "sft-1", also=[on_full.id], report=quiet)
