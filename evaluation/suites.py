"""`eval`: which tasks a suite asks, on which two models, and the report that comes of it."""

import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from importlib.metadata import version as package_version
from pathlib import Path

from evaluation import checks, detectors, lineage
from evaluation.confidence import calibrations
from evaluation.gate import Condition, require_metrics
from evaluation.hallucination.closed_book import grade
from evaluation.harness import Answer, Side, load_task, run_task, samples_hash
from evaluation.questions import named_tasks, own_tasks
from evaluation.report import write_report
from evaluation.results import Outcome, Results, Sample, Task, count_flips, write_results, write_samples
from evaluation.sides import load_folder, load_sides
from evaluation.statistics import Comparison, compare, with_holm
from evaluation.task_sources import SUITES, TaskSource
from feedback.cache import Cache
from feedback.errors import UserError
from feedback.files import atomic_folder
from feedback.schema import Message, prompt_key
from feedback.workspace import SETTINGS_FILE, Workspace
from training import batches, merging, runs
from training.runs import Run

PACKAGES = ("veritune", "lm-eval", "torch", "transformers", "peft")


def evaluate(
    workspace: Workspace,
    target: str,
    against: str | None = None,
    suite: str = "quick",
    limit: int | None = None,
    batch_size: int = 32,
    report: Callable[[str], None] = print,
    conditions: Sequence[Condition] = (),
    tasks: Sequence[str] = (),
    merged: bool = False,
    named_checks: Sequence[str] = (),
    cached: bool = True,
) -> Results:
    """Compare a run with its base, or with another run, on the same items, and write the report.

    Args:
        target: id of a finished run.
        against: id of another run that comes from the same base model; default: what the run was trained on.
        limit: take the first so many items of each task only.
        report: takes the lines that a person at the screen reads.
        conditions: what will be asked of the figures; one that none of them can answer is a mistake.
        tasks: further tasks by name, ours or lm-eval's.
        merged: ask the run's merged weights in place of its base with the adapter.
        named_checks: further checks of the answers, of evaluation/checks.py.
        cached: take what was answered before, in any evaluation of the workspace, from its cache.

    Raises:
        UserError: no such run, suite or check, nothing to ask, or a training that changes nothing.
    """
    if suite not in SUITES:
        raise UserError(f"--suite {suite}: not a suite; there is {', '.join(SUITES)}")
    made = checks.chosen(workspace, suite, named_checks)
    tuned_run = _finished(workspace, target)
    base_run = _finished(workspace, against) if against else None
    base, tuned = load_sides(tuned_run, base_run)
    if merged:
        tuned = load_folder(merging.cached(workspace, tuned_run, report), tuned_run.id)
    report_id = _next_id(workspace)
    with (
        atomic_folder(workspace.reports / report_id) as folder,
        Cache(workspace.cache) if cached else nullcontext() as cache,
    ):
        asked = own_tasks(workspace, tuned_run, tuned.tokenizer, folder)
        asked += named_tasks(workspace, suite, tasks, folder)
        if not asked:
            raise UserError(
                f"nothing to ask: {workspace.root / SETTINGS_FILE} names no evaluation.questions, "
                f"{tuned_run.manifest['dataset']['id']} has no pairs in its test split, and no --task was named"
            )
        require_metrics(conditions, {task.name: list(task.metrics | made.metrics(task)) for task in asked})
        if against != target:
            _require_difference(base, tuned, asked[0])
        samples: list[Sample] = []
        comparisons: list[Comparison | None] = []
        described: dict[str, Task] = {}
        for task in asked:
            sides = []
            for side in (base, tuned):
                report(f"{task.name}: asking {side.name}")
                answers = run_task(side, task, limit, batch_size, cache, report)
                sides.append(made.judge(side, task, answers, batch_size, cache, report))
            rows = [_sample(task, *pair) for pair in zip(*sides, strict=True)]
            samples += rows
            clusters = [row.cluster for row in rows]
            for metric, higher_is_better in (task.metrics | made.metrics(task)).items():
                of_base, of_tuned = ([answer.metrics[metric] for answer in side] for side in sides)
                comparisons.append(compare(task.name, metric, of_base, of_tuned, clusters, higher_is_better))
            described[task.name] = Task(
                version=task.version,
                n=len(rows),
                source=_source(task, folder),
                samples_hash=samples_hash(sides[0]),
            )
        results = Results(
            report_id=report_id,
            base=base.name,
            tuned=tuned.name,
            comparisons=tuple(with_holm([comparison for comparison in comparisons if comparison is not None])),
            flips=count_flips(samples),
            command=shlex.join(["veritune", *sys.argv[1:]]),
            suite=suite,
            limit=limit,
            tasks=described,
            calibration=tuple(calibrations(samples)),
            detectors=detectors.concerning(
                workspace.detectors, made.detectors(asked), {base.name, tuned.name} | made.judges
            ),
            lineage=tuple(lineage.ancestors(workspace, tuned_run)),
            notes=(
                *(["The tuned model's weights are the merged ones."] if merged else []),
                *_notes(samples),
                *made.notes(),
            ),
            environment={name: package_version(name) for name in PACKAGES} | {"python": platform.python_version()},
            hardware=tuned_run.manifest["hardware"],
        )
        write_samples(folder, samples)
        write_results(folder, results)
        write_report(folder, results)
    return results


def _finished(workspace: Workspace, run_id: str) -> Run:
    run = runs.find(workspace, run_id)
    run.verify_weights()
    return run


def _source(task: TaskSource, folder: Path) -> str:
    if task.data is None:
        return str(task.config["dataset_path"])
    return task.data.name if task.data.is_relative_to(folder) else str(task.data)


def _sample(task: TaskSource, base: Answer, tuned: Answer) -> Sample:
    doc = base.doc
    reference: tuple[str, ...] | None = None
    outcomes: tuple[Outcome | None, Outcome | None] = (None, None)
    if task.graded:
        reference = tuple(doc["answers" if task.kind == "closed_book" else "answer"])
        outcomes = (grade(base.text, reference), grade(tuned.text, reference))
    return Sample(
        task=task.name,
        item=base.doc_hash,
        cluster=doc.get("cluster") or prompt_key((Message(role="user", content=base.prompt),)),
        slice=doc.get("slice"),
        prompt=doc.get("question") or base.prompt,
        reference=reference,
        base_answer=base.text,
        tuned_answer=tuned.text,
        base_outcome=outcomes[0],
        tuned_outcome=outcomes[1],
        base_confidence=base.confidence,
        tuned_confidence=tuned.confidence,
        base_metrics=base.metrics,
        tuned_metrics=tuned.metrics,
    )


def _require_difference(base: Side, tuned: Side, task: TaskSource) -> None:
    """Refuse to compare a model with itself under two names: trained weights that were not applied.

    Raises:
        UserError: both give bit-identical logits.
    """
    import torch

    (loaded,) = load_task(task)["tasks"].values()
    row = next(iter(loaded.eval_docs))
    question = [{"role": "user", "content": row.get("prompt") or row.get("question") or "?"}]
    text, _ = batches.render(tuned.tokenizer, question, "")
    logits = []
    for side in (base, tuned):
        ids = side.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].to(side.model.device)
        with side.active(), torch.no_grad():
            logits.append(side.model(input_ids=ids).logits)
    if torch.equal(*logits):
        raise UserError(f"run {tuned.name}: answers exactly as {base.name} does, so what it trained is not in effect")


def _notes(samples: Sequence[Sample]) -> Iterator[str]:
    """What a figure alone would hide: how much of a gain is silence."""
    answerable = [sample for sample in samples if sample.graded and sample.reference]
    if answerable:
        base, tuned = (
            sum(getattr(sample, f"{side}_outcome") == "abstained" for sample in answerable) / len(answerable)
            for side in ("base", "tuned")
        )
        yield (
            f"Of the {len(answerable)} answerable questions the tuned model declines to answer {tuned:.1%}, "
            f"the base {base:.1%}."
        )


def _next_id(workspace: Workspace) -> str:
    numbers = [int(path.name.removeprefix("eval-")) for path in workspace.reports.glob("eval-*")]
    return f"eval-{max(numbers, default=0) + 1}"
