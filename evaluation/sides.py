"""The two models of a comparison: on one backbone where only adapters differ, else both in memory."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from evaluation.harness import Side
from feedback.errors import UserError
from feedback.files import content_hash
from training import finished, models
from training.runs import Run


def load_sides(tuned: Run, against: Run | None = None) -> tuple[Side, Side]:
    """Base and tuned; the base is what the run was trained on, or another run.

    Raises:
        UserError: a run gives no answers, its base is no longer what it was, or the two come from different ones.
    """
    if against is None:
        side = load_side(tuned)
        name, identity = models.short_name(tuned.manifest["model"]["name"]), tuned.manifest["model"]["hash"]
        if tuned.tuning == "lora":
            return Side(name, side.model, side.tokenizer, side.model.disable_adapter, identity), side
        return Side(name, finished.load_base(tuned).eval(), side.tokenizer, nullcontext, identity), side
    if tuned.origin["hash"] != against.origin["hash"]:
        raise UserError(
            f"--against {against.id}: trained on {against.origin['name']}, {tuned.id} on {tuned.origin['name']}; "
            "compare runs of one base model"
        )
    side = load_side(tuned)
    return beside(side, tuned, against), side


def beside(side: Side, first: Run, run: Run) -> Side:
    """What a run trained, on the backbone of a side where that is its own, else in memory beside it.

    Args:
        first: the run that the side is of.

    Raises:
        UserError: it gives no answers, or its base is no longer what it was.
    """
    backbones = [(each.manifest["model"], each.recipe.quantize) for each in (first, run)]
    if "full" in (first.tuning, run.tuning) or backbones[0] != backbones[1]:
        return load_side(run)
    run.require_answers()
    side.model.load_adapter(str(run.weights), adapter_name=run.id)
    tokenizer = models.load_tokenizer(str(run.weights))
    return Side(run.id, side.model, tokenizer, _switch(side.model, run.id), _identity(run))


def load_side(run: Run) -> Side:
    """What a run trained, as it answers.

    Raises:
        UserError: it gives no answers, or its base is no longer what it was.
    """
    run.require_answers()
    model, tokenizer = finished.load(run)
    active = nullcontext if run.tuning == "full" else _switch(model, "default")
    return Side(run.id, model, tokenizer, active, _identity(run))


def load_folder(folder: Path, name: str) -> Side:
    """A model of its own, with its tokenizer, in the precision that it was written in."""
    precision = "bf16" if "bfloat16" in str(models.load_config(str(folder)).dtype) else "fp32"
    model = models.load_base(str(folder), precision).eval()
    return Side(name, model, models.load_tokenizer(str(folder)), nullcontext, models.model_hash(str(folder)))


def _identity(run: Run) -> str:
    # The weights' folder holds the tokenizer, and so the chat template.
    return content_hash([run.manifest["model"]["hash"], run.manifest["weights"]])


def _switch(model: Any, adapter: str) -> Callable[[], AbstractContextManager[None]]:
    @contextmanager
    def active() -> Iterator[None]:
        model.set_adapter(adapter, inference_mode=True)
        yield

    return active
