"""Checks of answers that need no accepted ones: which are made, and what each says of a model's answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from evaluation.hallucination import groundedness, scores
from evaluation.hallucination.claims import Corpus, check_claims, read_corpus
from evaluation.hallucination.entailment import CrossEncoder, Entailment
from evaluation.hallucination.groundedness import Grounding, ungrounded
from evaluation.harness import Answer, Side
from evaluation.resampling import draw
from evaluation.task_sources import TaskSource
from feedback.cache import Cache
from feedback.errors import UserError
from feedback.workspace import EvaluationSettings, Workspace
from training import models, runs

# What each check measures, and what of veritune.toml that needs; a lower value is better in all of them.
METRICS: dict[str, dict[str, tuple[str, ...]]] = {
    "consistency": {"inconsistency": (), "contradiction": ("entailment",)},
    "semantic_entropy": {"semantic_entropy": ()},
    "claims": {"unsupported": ("corpus", "entailment"), "contradicted": ("corpus", "entailment")},
    "grounded": {"ungrounded": ("grounded",), "not_entailed": ("entailment",)},
}
# Those that veritune.toml need not set up.
SAMPLED = ("consistency", "semantic_entropy")
# What every graded answer goes through.
GRADING = ("matching", "abstention", "confidence")
# Where a check is asked for by name and the settings say nothing.
SAMPLES = 5


@dataclass(frozen=True)
class Checks:
    """The checks of one evaluation.

    Args:
        names: those of METRICS that are made.
    """

    names: tuple[str, ...]
    workspace: Workspace

    @property
    def settings(self) -> EvaluationSettings:
        return self.workspace.settings.evaluation

    @property
    def count(self) -> int:
        """How often a question is asked again."""
        return self.settings.samples or SAMPLES

    @cached_property
    def entailment(self) -> Entailment | None:
        return CrossEncoder(self.settings.entailment) if self.settings.entailment else None

    @cached_property
    def corpus(self) -> Corpus | None:
        return read_corpus(self.workspace.root / self.settings.corpus) if self.settings.corpus else None

    @cached_property
    def groundings(self) -> dict[str, Grounding]:
        """Who judges whether an answer stands on its context, by the metric's name."""
        found: dict[str, Grounding] = {}
        if self.settings.grounded:
            found["ungrounded"] = classifier(self.workspace)
        if self.entailment:
            found["not_entailed"] = groundedness.by_entailment(self.entailment)
        return found

    def metrics(self, task: TaskSource) -> dict[str, bool]:
        """What is measured in a task besides its own metrics, and whether a higher value is better."""
        if not task.graded:
            return {}
        # Only the workspace's own questions come with contexts.
        names = [name for name in self.names if name != "grounded" or task.own]
        return {metric: False for name in names for metric, keys in METRICS[name].items() if self._set_up(keys)}

    def detectors(self, tasks: Sequence[TaskSource]) -> list[str]:
        """What tells right from wrong in these tasks, by the names under which it is validated."""
        graded = [task for task in tasks if task.graded]
        if not graded:
            return []
        return [*GRADING, *dict.fromkeys(name for task in graded for name in self.metrics(task))]

    @property
    def judges(self) -> set[str]:
        """The models and runs that the checks ask."""
        return {name for name in (self.settings.grounded, self._entailment) if name}

    @property
    def _entailment(self) -> str | None:
        return models.short_name(self.settings.entailment) if self.settings.entailment else None

    def load(self) -> None:
        """Read what the checks need.

        Raises:
            UserError: a model, a run or a corpus that can't be had; a line for each.
        """
        needed = {key for name in self.names for keys in METRICS[name].values() if self._set_up(keys) for key in keys}
        mistakes: list[str] = []
        for key in ("entailment", "corpus", "groundings"):
            if key in needed or (key == "groundings" and "grounded" in self.names):
                try:
                    getattr(self, key)
                except UserError as error:
                    mistakes += error.lines
        if mistakes:
            raise UserError(*dict.fromkeys(mistakes))

    def notes(self) -> list[str]:
        """How the figures come about, for the report."""
        found = []
        if sampled := [name for name in self.names if name in SAMPLED]:
            how = f"the entailment model {self._entailment}" if self._entailment else "their wording"
            again = f"{self.count} more answers to each question at temperature {self.settings.temperature:g}"
            found.append(
                f"{' and '.join(sampled)}: from {again}, compared by {how}; lower is more consistent, not more true."
            )
        if "claims" in self.names:
            found.append(
                f"claims: sentences by {self._entailment} against {Path(str(self.settings.corpus)).name}; marked where "
                "that contradicts them. An answer that declines claims nothing."
            )
        if "grounded" in self.names:
            judges = " and ".join(sorted(self.judges))
            found.append(
                f"grounded: an answer's worst sentence by {judges}, against the question's context; marked above 0.5. "
                "An answer that declines claims nothing."
            )
        return found

    def judge(
        self,
        side: Side,
        task: TaskSource,
        answers: Sequence[Answer],
        batch_size: int,
        cache: Cache | None,
        report: Callable[[str], None],
    ) -> list[Answer]:
        """A model's answers to a task with what the checks say of them: among their metrics, and marked in them."""
        judged = list(answers)
        if not self.metrics(task):
            return judged
        if set(SAMPLED) & set(self.names):
            drawn = draw(side, task, answers, self.count, self.settings.temperature, batch_size, cache, report)
            judged = [_with(answer, self._sampled(answer, texts)) for answer, texts in zip(judged, drawn, strict=True)]
        if "claims" in self.names:
            judged = [self._claimed(answer) for answer in judged]
        if "grounded" in self.names and task.own:
            judged = self._grounded(judged)
        return judged

    def _sampled(self, answer: Answer, samples: Sequence[str]) -> dict[str, float]:
        question = str(answer.doc["question"])
        found: dict[str, float] = {}
        if "consistency" in self.names:
            found["inconsistency"] = scores.inconsistency(answer.text, samples)
            if self.entailment:
                found["contradiction"] = scores.contradiction(question, answer.text, samples, self.entailment)
        if "semantic_entropy" in self.names:
            found["semantic_entropy"] = scores.entropy(question, samples, self.entailment)
        return found

    def _claimed(self, answer: Answer) -> Answer:
        assert self.corpus
        assert self.entailment
        claims = check_claims(answer.text, self.corpus, self.entailment, str(answer.doc["question"]))
        wrong = [claim.sentence for claim in claims if claim.support == "contradicted"]
        return _with(answer, scores.of_claims(claims), tuple((part.start, part.end) for part in wrong))

    def _grounded(self, answers: Sequence[Answer]) -> list[Answer]:
        judged = list(answers)
        places = [place for place, answer in enumerate(answers) if answer.doc.get("context")]
        asked = [(str(answers[p].doc["context"]), str(answers[p].doc["question"]), answers[p].text) for p in places]
        for metric, judge in self.groundings.items():
            judged = [_with(answer, {metric: float("nan")}) for answer in judged]
            for place, found in zip(places, ungrounded(asked, judge), strict=True):
                judged[place] = _with(judged[place], {metric: found.score}, found.spans)
        return judged

    def _set_up(self, keys: Sequence[str]) -> bool:
        return all(getattr(self.settings, key) for key in keys)


def chosen(workspace: Workspace, suite: str, named: Sequence[str]) -> Checks:
    """The checks that were named, and in the larger suites those that veritune.toml sets up.

    Raises:
        UserError: there is no such check, or veritune.toml lacks what it needs; a line for each.
    """
    settings = workspace.settings.evaluation
    mistakes = [
        f"--check {name}: no such check; there is {', '.join(METRICS)}" for name in named if name not in METRICS
    ]
    if "claims" in named and not (settings.corpus and settings.entailment):
        mistakes.append("--check claims: set evaluation.corpus and evaluation.entailment in veritune.toml")
    if "grounded" in named and not (settings.grounded or settings.entailment):
        mistakes.append("--check grounded: set evaluation.grounded or evaluation.entailment in veritune.toml")
    if suite != "quick" and settings.corpus and not settings.entailment:
        mistakes.append("evaluation.corpus: claims are checked by entailment; set evaluation.entailment too")
    if mistakes:
        raise UserError(*mistakes)
    set_up = {
        "consistency": settings.samples,
        "semantic_entropy": settings.samples,
        "claims": settings.corpus and settings.entailment,
        "grounded": settings.grounded or settings.entailment,
    }
    wanted = {*named, *(name for name, value in set_up.items() if value and suite != "quick")}
    return Checks(tuple(name for name in METRICS if name in wanted), workspace)


def classifier(workspace: Workspace) -> Grounding:
    """The classifier run that evaluation.grounded names, as a judge.

    Raises:
        UserError: it is none, or has no label for made-up answers.
    """
    from training.labels import load_labeller

    settings = workspace.settings.evaluation
    assert settings.grounded
    return groundedness.by_classifier(load_labeller(runs.find(workspace, settings.grounded)), settings.grounded_label)


def _with(answer: Answer, metrics: dict[str, float], spans: tuple[tuple[int, int], ...] = ()) -> Answer:
    return replace(answer, metrics=answer.metrics | metrics, spans=tuple(sorted({*answer.spans, *spans})))
