"""lm-eval on models that are loaded already: its tasks, its scoring, its samples."""

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from evaluation.hallucination import closed_book
from evaluation.task_sources import SHARED_DATA, TaskSource
from feedback.cache import Cache
from feedback.constitution.endpoint import Endpoint
from feedback.errors import UserError
from feedback.files import content_hash

if TYPE_CHECKING:
    from lm_eval.api.model import LM

# Whose other versions may answer otherwise.
PACKAGES = ("lm-eval", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Side:
    """One of the two models that are compared; `active()` puts its adapter in effect on the shared backbone.

    `identity` is a hash of its weights; without one, its answers are not kept. The model may be an endpoint, which
    keeps them itself.
    """

    name: str
    model: Any
    tokenizer: Any
    active: Callable[[], AbstractContextManager[Any]]
    identity: str | None = None

    @property
    def remote(self) -> bool:
        """Whether it only answers, and tells no probabilities."""
        return isinstance(self.model, Endpoint)


@dataclass(frozen=True)
class Answer:
    """What one model said to one item; `confidence` is the answer's probability under it, None in multiple choice.

    `spans` are the places of its text that a check takes for made up, from one character up to another.
    """

    doc: dict[str, Any]
    doc_hash: str
    prompt: str
    text: str
    confidence: float | None
    metrics: dict[str, float]
    spans: tuple[tuple[int, int], ...] = ()


def load_task(task: TaskSource) -> dict[str, Any]:
    """A task with its data, as lm-eval's evaluator takes it.

    Raises:
        UserError: the data can't be read, or is not to be had from the hub.
    """
    from lm_eval.tasks import TaskManager

    try:
        return TaskManager(include_defaults=False).load([task.config])
    except Exception as error:
        # Whatever datasets, pyarrow or the hub's client make of a file that is no JSON, or of no network.
        reason = " ".join(str(error).split())[:300]
        if task.data is not None:
            raise UserError(f"task {task.name}: {task.data} can't be read as its data ({reason})") from error
        key = SHARED_DATA.get(task.kind, task.kind)
        raise UserError(
            f"task {task.name}: {task.config['dataset_path']} is not to be had from the hub ({reason}); name a local "
            f"copy in veritune.toml, under [evaluation.data]: {key} = FILE"
        ) from error


def run_task(
    side: Side,
    task: TaskSource,
    limit: int | None,
    batch_size: int,
    cache: Cache | None = None,
    say: Callable[[str], None] = lambda line: None,
    chat: bool = False,
) -> list[Answer]:
    """Ask one model every item of a task.

    Args:
        limit: take the first so many items only.
        batch_size: prompts in one forward pass.
        cache: what any model answered before, and where this one's answers are kept.
        say: takes a line on the progress now and then.
        chat: put the question as a user's turn, as an endpoint's chat does.

    Raises:
        UserError: its data is not to be had.
    """
    import lm_eval

    from evaluation.endpoint_model import EndpointModel
    from evaluation.recall import Recall
    from evaluation.shared_prompts import SharedPrompts

    # It warns that it was given a loaded model, which is the point.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    loaded = load_task(task)
    with side.active():
        if side.remote:
            lm: LM = EndpointModel(side.model, cache is not None, say)
        else:
            model = SharedPrompts(
                pretrained=side.model, tokenizer=side.tokenizer, batch_size=batch_size, truncation=True
            )
            for each in loaded["tasks"].values():
                if task.generated and model.max_gen_toks >= model.max_length:
                    # lm-eval refuses a pocket model, whose context is no longer than what it lets models say.
                    each.set_config("generation_kwargs", {"max_gen_toks": model.max_length // 4}, update=True)
            lm = Recall(model, identity(side), cache, batch_size, f"{task.name}, {side.name}", say)
        # Not simple_evaluate: it lists this machine's packages and asks git for a commit, for us to throw away.
        output = lm_eval.evaluate(
            lm=lm,
            task_dict=loaded,
            limit=limit,
            # lm-eval's tasks are asked as lm-eval asks them, and preferences bring prompts that are rendered already.
            apply_chat_template=chat or task.kind == "closed_book",
            bootstrap_iters=0,
        )
        by_item: dict[int, dict[str, dict[str, Any]]] = {}
        for sample in output["samples"][task.name]:
            by_item.setdefault(sample["doc_id"], {})[sample["filter"]] = sample
        items = [by_item[number] for number in sorted(by_item)]
        texts = [_text(item) if task.generated else _preferred(next(iter(item.values()))) for item in items]
        first = [next(iter(item.values())) for item in items]
        confidences = _confidences(lm, first, texts) if task.graded and not side.remote else [None] * len(items)
    return [
        Answer(
            doc=sample["doc"],
            doc_hash=sample["doc_hash"],
            prompt=sample["arguments"][0][0],
            text=text,
            confidence=confidence,
            metrics=_metrics(task, item, text),
        )
        for item, sample, text, confidence in zip(items, first, texts, confidences, strict=True)
    ]


def samples_hash(answers: Sequence[Answer]) -> str:
    """Names a set of items: equal for equal questions in the same order."""
    return content_hash([answer.doc_hash for answer in answers])


def identity(side: Side) -> str | None:
    """What a side's answers depend on: weights, tokenizer, arithmetic and code."""
    if side.identity is None:
        return None
    config = side.model.config
    arithmetic = [str(side.model.dtype), side.model.device.type, hasattr(config, "quantization_config")]
    tokenizer = [side.tokenizer.get_vocab(), side.tokenizer.eos_token, side.tokenizer.bos_token]
    return content_hash([side.identity, tokenizer, arithmetic, [version(name) for name in PACKAGES]])


def _metrics(task: TaskSource, item: dict[str, dict[str, Any]], text: str) -> dict[str, float]:
    """An item's metrics under the names that the task gives them."""
    several = len(task.filters) > 1
    found = {
        f"{name},{filter_}" if several else name: float(sample[name])
        for filter_, sample in item.items()
        for name in sample["metrics"]
    }
    if task.kind == "nq_open":
        answers = next(iter(item.values()))["doc"]["answer"]
        found |= closed_book.process_results({"answers": answers}, [text])
    return {name: found[name] for name in task.metrics}


def _confidences(lm: Any, samples: Sequence[dict[str, Any]], texts: Sequence[str]) -> list[float]:
    """Probability of each generated answer given its prompt."""
    from lm_eval.api.instance import Instance

    requests = [
        Instance("loglikelihood", s["doc"], (s["arguments"][0][0], text or " "), 0)
        for s, text in zip(samples, texts, strict=True)
    ]
    return [min(1.0, math.exp(logprob)) for logprob, _ in lm.loglikelihood(requests)]


def _text(item: dict[str, dict[str, Any]]) -> str:
    """What was generated: as the one filter leaves it, or as it came where several look for different things in it."""
    (sample, *others) = item.values()
    return str(sample["resps"][0][0] if others else sample["filtered_resps"][0])


def _preferred(sample: dict[str, Any]) -> str:
    """The choice that the model finds more probable."""
    scores = [float(response[0]) for response in sample["filtered_resps"]]
    best = scores.index(max(scores))
    return str(sample["arguments"][best][1])
