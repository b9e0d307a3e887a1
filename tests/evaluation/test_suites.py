"""Base and tuned on one backbone: same items, honest differences, and a report whose every link can be followed."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluation.harness import run_task
from evaluation.results import read_results, read_samples
from evaluation.sides import load_sides
from evaluation.suites import evaluate
from evaluation.task_sources import TaskSource
from feedback.errors import UserError
from feedback.files import hash_folder
from feedback.versions import DatasetVersion
from feedback.workspace import SETTINGS_FILE, Workspace
from training import adapters, batches, models
from training.launch import train
from training.runs import Run


def quiet(line: str) -> None:
    pass


@pytest.fixture
def questions(workspace: Workspace) -> Path:
    rows = [{"question": f"{n} + 1?", "answers": [str(n + 1)], "slice": "sum"} for n in range(6)]
    rows += [{"question": f"Who is number {n}?", "answers": [], "slice": "nobody"} for n in range(4)]
    path = workspace.root / "held_out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workspace.root / SETTINGS_FILE).write_text('[evaluation]\nquestions = ["held_out.jsonl"]\n')
    return path


@pytest.fixture
def run(workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path) -> Run:
    keys = ["dataset=sums", f"model={tiny_model}", "max_steps=8", "learning_rate=2e-2"]
    return train(workspace, "sft", keys, quiet)


def test_a_report_has_the_promised_form(
    workspace: Workspace, questions: Path, run: Run, veritune: Callable[..., Any]
) -> None:
    results = evaluate(workspace, run.id, report=quiet)
    shown = veritune("--workspace", workspace.root, "report", "show", results.report_id, "--json")
    assert set(shown) >= {"report_id", "base", "tuned", "comparisons", "flips"}
    assert (shown["tuned"], set(shown["flips"])) == (run.id, {"gained", "lost"})
    keys = {"task", "metric", "n", "base", "tuned", "difference", "ci_low", "ci_high", "p_value", "p_holm"}
    assert all(set(comparison) >= keys for comparison in shown["comparisons"])
    n_of = {(c["task"], c["metric"]): c["n"] for c in shown["comparisons"]}
    assert n_of[("held_out", "accuracy")] == 6
    assert n_of[("held_out", "hallucination_rate")] == 4
    assert n_of[("held_out", "score@0.75")] == 10
    assert n_of[("preferences", "acc")] == len(results_pairs(workspace))
    page = (workspace.reports / results.report_id / "report.html").read_text()
    assert "held_out" in page
    samples = read_samples(workspace.reports / results.report_id)
    assert len(samples) == 10 + len(results_pairs(workspace))
    assert all(0 <= s.base_confidence <= 1 for s in samples if s.base_confidence is not None)


def results_pairs(workspace: Workspace) -> Any:
    from feedback.versions import load

    return load(workspace, "sums").pairs("test")


def test_every_figure_is_the_mean_of_its_samples(workspace: Workspace, questions: Path, run: Run) -> None:
    results = evaluate(workspace, run.id, report=quiet)
    samples = read_samples(workspace.reports / results.report_id)
    for comparison in results.comparisons:
        rows = [s for s in samples if s.task == comparison.task]
        for side, mean in (("base", comparison.base), ("tuned", comparison.tuned)):
            values = [getattr(s, f"{side}_metrics")[comparison.metric] for s in rows]
            defined = [value for value in values if value is not None]
            assert len(defined) == comparison.n
            assert mean == pytest.approx(sum(defined) / len(defined))


def test_preferences_are_the_log_probabilities_that_dpo_sees(workspace: Workspace, questions: Path, run: Run) -> None:
    results = evaluate(workspace, run.id, report=quiet)
    _, tuned = load_sides(run)
    correct = []
    for pair in results_pairs(workspace):
        logp = {}
        for kind in ("chosen", "rejected"):
            prompt, answer = batches.encode(tuned.tokenizer, pair["prompt"], pair[kind])
            with tuned.active(), torch.no_grad():
                logits = tuned.model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            logp[kind] = logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None]).sum().item()
        correct.append(logp["chosen"] > logp["rejected"])
    (comparison,) = (c for c in results.comparisons if (c.task, c.metric) == ("preferences", "acc"))
    assert comparison.tuned == pytest.approx(sum(correct) / len(correct))


def test_answers_are_what_the_model_says_alone_and_confidence_is_their_probability(
    workspace: Workspace, questions: Path, run: Run
) -> None:
    base, tuned = load_sides(run)
    task = TaskSource("held_out", "closed_book", questions)
    for side, adapter in ((base, None), (tuned, run.weights)):
        answers = run_task(side, task, limit=3, batch_size=2)
        alone = models.load_base(run.manifest["model"]["name"])
        alone = adapters.load_adapter(alone, adapter).eval() if adapter else alone.eval()
        for answer in answers:
            ids = side.tokenizer(answer.prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                new = alone.generate(ids, max_new_tokens=64, do_sample=False)[0, ids.shape[1] :]
            assert answer.text == side.tokenizer.decode(new, skip_special_tokens=True).split("\n")[0]
            assert answer.confidence is not None
            if answer.text:
                said = side.tokenizer(answer.text, add_special_tokens=False)["input_ids"]
                with torch.no_grad():
                    logits = alone(input_ids=torch.cat([ids, torch.tensor([said])], 1)).logits[0, ids.shape[1] - 1 : -1]
                logp = logits.log_softmax(-1).gather(-1, torch.tensor(said)[:, None]).sum().item()
                assert answer.confidence == pytest.approx(math.exp(logp), rel=1e-3, abs=1e-9)


def test_a_model_against_itself_shows_no_difference(workspace: Workspace, questions: Path, run: Run) -> None:
    results = evaluate(workspace, run.id, against=run.id, report=quiet)
    assert (results.flips.gained, results.flips.lost) == (0, 0)
    for comparison in results.comparisons:
        assert (comparison.difference, comparison.p_value) == (0, 1)


def test_an_adapter_that_is_not_in_effect_is_an_error(workspace: Workspace, questions: Path, run: Run) -> None:
    path = run.weights / "adapter_model.safetensors"
    save_file({name: torch.zeros_like(value) for name, value in load_file(path).items()}, path)
    run.update(weights=hash_folder(run.weights))
    with pytest.raises(UserError, match="what it trained is not in effect"):
        evaluate(workspace, run.id, report=quiet)
    assert not list(workspace.reports.glob("eval-*"))


def test_an_altered_adapter_is_refused(workspace: Workspace, questions: Path, run: Run) -> None:
    path = run.weights / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="no longer match its manifest"):
        evaluate(workspace, run.id, report=quiet)


def test_bad_questions_are_all_named(workspace: Workspace, questions: Path, run: Run) -> None:
    questions.write_text('{"question": "a?", "answers": "b"}\n{"question": "a?", "answers": []}\nno\n{"answers": []}\n')
    with pytest.raises(UserError) as caught:
        evaluate(workspace, run.id, report=quiet)
    assert [line.split(":")[0].split(", ")[-1] for line in caught.value.lines] == ["line 1", "line 3", "line 4"]


def test_limit_takes_the_first_items(workspace: Workspace, questions: Path, run: Run) -> None:
    results = evaluate(workspace, run.id, limit=3, report=quiet)
    assert results.tasks["held_out"].n == 3
    assert results.limit == 3


def test_lineage_leads_from_a_label_to_the_report_and_back(
    workspace: Workspace, questions: Path, run: Run, veritune: Callable[..., Any]
) -> None:
    child = train(workspace, "dpo", ["dataset=sums", f"parent={run.id}", "max_steps=2", "learning_rate=1e-2"], quiet)
    report = evaluate(workspace, child.id, report=quiet).report_id

    def lineage(name: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        found = veritune("--workspace", workspace.root, "lineage", name, "--json")
        up, down = ([(x["kind"], x["id"]) for x in found[side]] for side in ("upstream", "downstream"))
        assert {x["state"] for side in ("upstream", "downstream") for x in found[side]} == {"ok"}
        return up, down

    label = results_pairs(workspace)[0]["judgements"][0]
    _, down = lineage(label[:12])
    assert down == [("dataset", "sums@v1"), ("run", "sft-1"), ("run", "dpo-1"), ("report", report)]
    up, _ = lineage(report)
    assert [x for x in up if x[0] != "labels"] == [
        ("model", run.manifest["model"]["name"]),
        ("dataset", "sums@v1"),
        ("run", "sft-1"),
        ("run", "dpo-1"),
    ]
    assert lineage("sft-1")[1] == [("run", "dpo-1"), ("report", report)]
    assert lineage("sums@v1")[1] == [("run", "sft-1"), ("run", "dpo-1"), ("report", report)]
    assert veritune("--workspace", workspace.root, "lineage", "nothing-here").status == 2

    (workspace.root / "datasets" / "sums" / "v1" / "set_aside.jsonl").write_text("altered")
    states = {
        x["id"]: x["state"] for x in veritune("--workspace", workspace.root, "lineage", report, "--json")["upstream"]
    }
    assert states["sums@v1"] == "altered"


def test_two_runs_of_different_bases_are_not_compared(
    workspace: Workspace, questions: Path, run: Run, tiny_model: Path, tmp_path: Path
) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    weights = load_file(other / "model.safetensors")
    save_file({name: value * 1.5 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
    second = train(workspace, "sft", ["dataset=sums", f"model={other}", "max_steps=1", "learning_rate=1e-2"], quiet)
    with pytest.raises(UserError, match="compare runs of one base model"):
        evaluate(workspace, run.id, against=second.id, report=quiet)


def test_results_say_where_they_come_from(workspace: Workspace, questions: Path, run: Run) -> None:
    report_id = evaluate(workspace, run.id, report=quiet).report_id
    results = read_results(workspace.reports / report_id)
    assert results.tasks["held_out"].source == str(questions)
    assert results.command.startswith("veritune")
    assert "torch" in results.environment
    assert any("answerable questions" in note for note in results.notes)
