"""lm-eval on models that are loaded already: its tasks, its scoring, its samples."""

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.files import content_hash

TASKS = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class Side:
    """One of the two models that are compared; `active()` puts its adapter in effect on the shared backbone."""

    name: str
    model: Any
    tokenizer: Any
    active: Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class TaskSource:
    """A task of evaluation/tasks with the file that its items come from."""

    name: str
    kind: str
    data: Path

    def config(self) -> dict[str, Any]:
        """The YAML task under this name, reading this file."""
        from lm_eval.tasks._yaml_loader import load_yaml

        config = load_yaml(TASKS / f"{self.kind}.yaml")
        return {**config, "task": self.name, "dataset_kwargs": {"data_files": {"test": str(self.data)}}}

    @property
    def metrics(self) -> dict[str, bool]:
        """The task's metrics in order, and whether a higher value is better."""
        return {entry["metric"]: entry["higher_is_better"] for entry in self.config()["metric_list"]}


@dataclass(frozen=True)
class Answer:
    """What one model said to one item; `confidence` is the answer's probability under it, None in multiple choice."""

    doc: dict[str, Any]
    doc_hash: str
    prompt: str
    text: str
    confidence: float | None
    metrics: dict[str, float]


def run_task(side: Side, task: TaskSource, limit: int | None, batch_size: int) -> list[Answer]:
    """Ask one model every item of a task.

    Args:
        limit: take the first so many items only.
        batch_size: items in one forward pass.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    # It warns that it was given a loaded model, which is the point.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with side.active():
        lm = HFLM(pretrained=side.model, tokenizer=side.tokenizer, batch_size=batch_size, truncation=True)
        # Not simple_evaluate: it lists this machine's packages and asks git for a commit, for us to throw away.
        output = lm_eval.evaluate(
            lm=lm,
            task_dict=TaskManager(include_defaults=False).load([task.config()]),
            limit=limit,
            # The preferences task brings prompts that are rendered already.
            apply_chat_template=task.kind != "preferences",
            bootstrap_iters=0,
        )
        samples = sorted(output["samples"][task.name], key=lambda sample: sample["doc_id"])
        generated = task.config()["output_type"] == "generate_until"
        confidences = _confidences(lm, samples) if generated else [None] * len(samples)
    return [
        Answer(
            doc=sample["doc"],
            doc_hash=sample["doc_hash"],
            prompt=sample["arguments"][0][0],
            text=str(sample["filtered_resps"][0]) if generated else _preferred(sample),
            confidence=confidence,
            metrics={name: float(sample[name]) for name in task.metrics},
        )
        for sample, confidence in zip(samples, confidences, strict=True)
    ]


def samples_hash(answers: Sequence[Answer]) -> str:
    """Names a set of items: equal for equal questions in the same order."""
    return content_hash([answer.doc_hash for answer in answers])


def _confidences(lm: Any, samples: Sequence[dict[str, Any]]) -> list[float]:
    """Probability of each generated answer given its prompt."""
    from lm_eval.api.instance import Instance

    requests = [
        Instance("loglikelihood", s["doc"], (s["arguments"][0][0], s["filtered_resps"][0] or " "), 0) for s in samples
    ]
    return [min(1.0, math.exp(logprob)) for logprob, _ in lm.loglikelihood(requests, disable_tqdm=True)]


def _preferred(sample: dict[str, Any]) -> str:
    """The choice that the model finds more probable."""
    scores = [float(response[0]) for response in sample["filtered_resps"]]
    best = scores.index(max(scores))
    return str(sample["arguments"][best][1])
