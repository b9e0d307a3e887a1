"""Checks of answers that need no accepted ones: which are made, and what each says of a model's answers."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from evaluation.generation import Sampling, sample_encoded
from evaluation.hallucination import scores
from evaluation.hallucination.entailment import CrossEncoder, Entailment
from evaluation.harness import Answer, Side, identity
from evaluation.task_sources import TaskSource
from feedback.argilla.progress import Progress
from feedback.cache import Cache
from feedback.errors import UserError
from feedback.files import content_hash
from feedback.workspace import EvaluationSettings, Workspace
from training import models

# What each check measures; a lower value is better in all of them.
METRICS = {
    "consistency": ("inconsistency", "contradiction"),
    "semantic_entropy": ("semantic_entropy",),
}
# What every graded answer goes through.
GRADING = ("matching", "abstention", "confidence")
# Where a check is asked for by name and the settings say nothing.
SAMPLES = 5
# lm-eval's own, for tasks that say nothing.
MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class Checks:
    """The checks of one evaluation.

    Args:
        names: those of METRICS that are made.
    """

    names: tuple[str, ...]
    settings: EvaluationSettings

    @property
    def count(self) -> int:
        """How often a question is asked again."""
        return self.settings.samples or SAMPLES

    @cached_property
    def entailment(self) -> Entailment | None:
        return CrossEncoder(self.settings.entailment) if self.settings.entailment else None

    def metrics(self, task: TaskSource) -> dict[str, bool]:
        """What is measured in a task besides its own metrics, and whether a higher value is better."""
        if not task.graded:
            return {}
        names = [metric for check in self.names for metric in METRICS[check]]
        return {name: False for name in names if name != "contradiction" or self.settings.entailment}

    def detectors(self, tasks: Sequence[TaskSource]) -> list[str]:
        """What tells right from wrong in these tasks, by the names under which it is validated."""
        graded = [task for task in tasks if task.graded]
        if not graded:
            return []
        return [*GRADING, *dict.fromkeys(name for task in graded for name in self.metrics(task))]

    @property
    def judges(self) -> set[str]:
        """The models and runs that the checks ask."""
        return {models.short_name(self.settings.entailment)} if self.settings.entailment else set()

    def notes(self) -> list[str]:
        """How the figures come about, for the report."""
        if not self.names:
            return []
        how = f"the entailment model {self.settings.entailment}" if self.settings.entailment else "their wording"
        again = f"{self.count} more answers to each question at temperature {self.settings.temperature:g}"
        names = " and ".join(self.names)
        return [f"{names}: from {again}, compared by {how}; lower is more consistent, not more true."]

    def judge(
        self,
        side: Side,
        task: TaskSource,
        answers: Sequence[Answer],
        batch_size: int,
        cache: Cache | None,
        report: Callable[[str], None],
    ) -> list[Answer]:
        """A model's answers to a task with what the checks say of them among their metrics."""
        if not self.metrics(task):
            return list(answers)
        samples = self._samples(side, task, answers, batch_size, cache, report)
        return [
            replace(answer, metrics=answer.metrics | self._sampled(answer, of_answer))
            for answer, of_answer in zip(answers, samples, strict=True)
        ]

    def _samples(
        self,
        side: Side,
        task: TaskSource,
        answers: Sequence[Answer],
        batch_size: int,
        cache: Cache | None,
        report: Callable[[str], None],
    ) -> list[list[str]]:
        """Further answers to each prompt, asked and cut as the task asks and cuts."""
        asked = task.config["generation_kwargs"]
        room = asked.get("max_gen_toks", MAX_NEW_TOKENS)
        context: int = getattr(side.model.config, "max_position_embeddings", None) or sys.maxsize
        if context <= MAX_NEW_TOKENS:
            # As the harness does for models of so small a context.
            room = context // 4
        sampling = Sampling(temperature=self.settings.temperature, max_new_tokens=room)
        progress = Progress(self.count * len(answers), f"{task.name}: {side.name}, asked again", report)
        prompts = [_encoded(side, answer.prompt)[-max(1, context - room) :] for answer in answers]
        who, size = identity(side) if cache else None, max(1, batch_size // self.count)
        drawn: list[list[str]] = []
        # Drawn batch by batch, each from a seed of its own, so that what is left of an evaluation is drawn the same.
        for batch in (prompts[start : start + size] for start in range(0, len(prompts), size)):
            key = content_hash([who, "samples", batch, self.count, sampling.model_dump()])
            found = cache.find(key) if cache and who else None
            if found is None:
                seeded = sampling.model_copy(update={"seed": int(content_hash(batch)[:8], 16)})
                found = sample_encoded(side, batch, self.count, seeded, batch_size)
                if cache and who:
                    cache.keep([(key, found)])
            drawn += found
            progress.step(self.count * len(batch))
        return [[_cut(text, asked["until"]) for text in of_answer] for of_answer in drawn]

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


def chosen(workspace: Workspace, suite: str, named: Sequence[str]) -> Checks:
    """The checks that were named, and in the larger suites those that veritune.toml sets up.

    Raises:
        UserError: there is no such check; a line for each.
    """
    settings = workspace.settings.evaluation
    unknown = [name for name in named if name not in METRICS]
    if unknown:
        raise UserError(*(f"--check {name}: no such check; there is {', '.join(METRICS)}" for name in unknown))
    set_up = [*(("consistency", "semantic_entropy") if settings.samples else ())] if suite != "quick" else []
    wanted = {*named, *set_up}
    return Checks(tuple(name for name in METRICS if name in wanted), settings)


def _encoded(side: Side, prompt: str) -> list[int]:
    """A rendered prompt as lm-eval encodes it."""
    bos = side.tokenizer.bos_token
    ids: list[int] = side.tokenizer(prompt, add_special_tokens=not (bos and prompt.startswith(bos)))["input_ids"]
    return ids


def _cut(text: str, until: Sequence[str]) -> str:
    """A text up to where the task stops reading."""
    return text[: min((place for stop in until if (place := text.find(stop)) >= 0), default=len(text))].strip()
