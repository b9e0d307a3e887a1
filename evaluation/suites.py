"""`eval`: which tasks a suite asks, on which two models, and the report that comes of it."""

import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version as package_version
from pathlib import Path

from evaluation import checks, detectors, votes
from evaluation.confidence import calibrations
from evaluation.gate import Condition, require_metrics
from evaluation.hallucination.closed_book import grade
from evaluation.harness import Answer, Side, load_task, run_task, samples_hash
from evaluation.lineage import ancestors
from evaluation.questions import named_tasks, own_tasks
from evaluation.report import write_report
from evaluation.results import (
    Ancestor,
    Outcome,
    Results,
    Sample,
    Task,
    count_flips,
    named_apart,
    write_results,
    write_samples,
)
from evaluation.statistics import Comparison, compare, with_holm
from evaluation.targets import Target, load_targets
from evaluation.task_sources import SUITES, TaskSource
from feedback.cache import Cache
from feedback.errors import UserError
from feedback.files import atomic_folder
from feedback.schema import Message, prompt_key
from feedback.workspace import SETTINGS_FILE, Workspace
from training import batches
from training.launch import hardware

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
    also: Sequence[str] = (),
) -> Results:
    """Compare a tuned model with its base, or with another model, on the same items, and write the report.

    Args:
        target: id of a finished run, or a model's folder or hub name.
        against: the same of what it is compared with; default: what the run was trained on.
        limit: take the first so many items of each task only.
        report: takes the lines that a person at the screen reads.
        conditions: what will be asked of the figures; one that none of them can answer is a mistake.
        tasks: further tasks by name, ours or lm-eval's.
        merged: ask the run's merged weights in place of its base with the adapter.
        named_checks: further checks of the answers, of evaluation/checks.py.
        cached: take what was answered before, in any evaluation of the workspace, from its cache.
        also: further targets, each compared with the same base, and p adjusted over all.

    Raises:
        UserError: no such run, suite or check, nothing to ask, or a training that changes nothing.
    """
    if suite not in SUITES:
        raise UserError(f"--suite {suite}: not a suite; there is {', '.join(SUITES)}")
    made = checks.chosen(workspace, suite, named_checks)
    made.load()
    base, targets = load_targets(workspace, [target, *also], against, merged, report)
    report_id = _next_id(workspace)
    with (
        atomic_folder(workspace.reports / report_id) as folder,
        Cache(workspace.cache) if cached else nullcontext() as cache,
    ):
        tokenizers = [each.side.tokenizer for each in targets if each.run]
        asked = own_tasks(workspace, [each.run for each in targets], next(iter(tokenizers), None), folder)
        asked += named_tasks(workspace, suite, tasks, folder)
        remote = any(side.remote for side in (base, *(each.side for each in targets)))
        unasked = [task.name for task in asked if remote and not task.generated]
        asked = [task for task in asked if task.name not in unasked]
        if remote and made.names:
            raise UserError(f"--check {made.names[0]}: an endpoint is not asked again for it yet; leave it out")
        if not asked:
            raise UserError(
                f"nothing to ask: {workspace.root / SETTINGS_FILE} names no evaluation.questions, no dataset that all "
                "the runs were trained on has pairs in its test split, and no --task was named"
            )
        require_metrics(conditions, {task.name: list(task.metrics | made.metrics(task)) for task in asked})
        for tuned in targets:
            if tuned.name != against and not remote:
                _require_difference(base, tuned.side, asked[0])
        found = {tuned.name: _Found() for tuned in targets}
        described: dict[str, Task] = {}

        def ask(side: Side, task: TaskSource) -> list[Answer]:
            report(f"{task.name}: asking {side.name}")
            answers = run_task(side, task, limit, batch_size, cache, report, remote)
            return made.judge(side, task, answers, batch_size, cache, report)

        for task in asked:
            of_base = ask(base, task)
            for tuned in targets:
                model = tuned.name if len(targets) > 1 else None
                found[tuned.name].add(task, task.metrics | made.metrics(task), of_base, ask(tuned.side, task), model)
            described[task.name] = Task(
                version=task.version,
                n=len(of_base),
                source=_source(task, folder),
                samples_hash=samples_hash(of_base),
            )
        flips = {name: count_flips(each.samples) for name, each in found.items()}
        samples = [sample for each in found.values() for sample in each.samples]
        links = {(link.kind, link.id): link for tuned in targets for link in _origins(workspace, tuned)}
        results = Results(
            report_id=report_id,
            base=base.name,
            tuned=targets[0].name,
            comparisons=tuple(with_holm([c for each in found.values() for c in each.comparisons])),
            flips=flips.pop(targets[0].name),
            also=flips,
            command=shlex.join(["veritune", *sys.argv[1:]]),
            suite=suite,
            limit=limit,
            tasks=described,
            calibration=tuple(calibrations(named_apart(samples))),
            detectors=detectors.concerning(
                workspace.detectors, made.detectors(asked), {base.name, *found} | made.judges
            ),
            votes=votes.of_models(workspace, base.name, list(found)),
            lineage=tuple(links.values()),
            notes=(
                *(["The tuned model's weights are the merged ones."] if merged else []),
                *(line for each in found.values() for line in _notes(each.samples)),
                *(_remote_notes(unasked) if remote else []),
                *made.notes(),
            ),
            environment={name: package_version(name) for name in PACKAGES} | {"python": platform.python_version()},
            hardware=hardware(),
        )
        write_samples(folder, samples)
        write_results(folder, results)
        write_report(folder, results)
    return results


@dataclass
class _Found:
    """What one tuned model showed beside the base."""

    samples: list[Sample] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)

    def add(
        self, task: TaskSource, metrics: Mapping[str, bool], base: list[Answer], tuned: list[Answer], model: str | None
    ) -> None:
        rows = [_sample(task, *pair, model) for pair in zip(base, tuned, strict=True)]
        self.samples += rows
        clusters = [row.cluster for row in rows]
        for metric, higher_is_better in metrics.items():
            of_base, of_tuned = ([answer.metrics[metric] for answer in side] for side in (base, tuned))
            if comparison := compare(task.name, metric, of_base, of_tuned, clusters, higher_is_better):
                self.comparisons.append(comparison.model_copy(update={"model": model}))


def _origins(workspace: Workspace, tuned: Target) -> Iterator[Ancestor]:
    if tuned.run:
        yield from ancestors(workspace, tuned.run)
    else:
        yield Ancestor(kind="model", id=tuned.origin, hash=tuned.side.identity, state="ok")


def _source(task: TaskSource, folder: Path) -> str:
    if task.data is None:
        return str(task.config["dataset_path"])
    return task.data.name if task.data.is_relative_to(folder) else str(task.data)


def _sample(task: TaskSource, base: Answer, tuned: Answer, model: str | None) -> Sample:
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
        context=doc.get("context"),
        reference=reference,
        base_answer=base.text,
        tuned_answer=tuned.text,
        base_outcome=outcomes[0],
        tuned_outcome=outcomes[1],
        base_confidence=base.confidence,
        tuned_confidence=tuned.confidence,
        base_metrics=base.metrics,
        tuned_metrics=tuned.metrics,
        model=model,
        base_spans=base.spans,
        tuned_spans=tuned.spans,
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
        raise UserError(f"{tuned.name}: answers exactly as {base.name} does, so what it trained is not in effect")


def _notes(samples: Sequence[Sample]) -> Iterator[str]:
    """What a figure alone would hide: how much of a gain is silence."""
    answerable = [sample for sample in samples if sample.graded and sample.reference]
    if answerable:
        base, tuned = (
            sum(getattr(sample, f"{side}_outcome") == "abstained" for sample in answerable) / len(answerable)
            for side in ("base", "tuned")
        )
        yield (
            f"Of the {len(answerable)} answerable questions {answerable[0].model or 'the tuned model'} declines to "
            f"answer {tuned:.1%}, the base {base:.1%}."
        )


def _remote_notes(unasked: Sequence[str]) -> Iterator[str]:
    yield "Questions were put as a user's turn to all, as an endpoint takes them."
    if unasked:
        yield f"An endpoint's chat tells no probabilities, so not asked: {', '.join(unasked)}."


def _next_id(workspace: Workspace) -> str:
    numbers = [int(path.name.removeprefix("eval-")) for path in workspace.reports.glob("eval-*")]
    return f"eval-{max(numbers, default=0) + 1}"
