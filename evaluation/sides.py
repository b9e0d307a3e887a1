"""The two models of a comparison: on one backbone where only adapters differ, else both in memory."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from evaluation.harness import Side
from feedback.errors import UserError
from training import adapters, models
from training.runs import Run


def load_sides(tuned: Run, against: Run | None = None) -> tuple[Side, Side]:
    """Base and tuned; the base is what the run was trained on, or another run.

    Raises:
        UserError: a run gives no answers, its base is no longer what it was, or the two come from different ones.
    """
    if against is None:
        side = load_side(tuned)
        name = models.short_name(tuned.manifest["model"]["name"])
        if tuned.tuning == "lora":
            return Side(name, side.model, side.tokenizer, side.model.disable_adapter), side
        return Side(name, _load_base(tuned).eval(), side.tokenizer, nullcontext), side
    if tuned.origin["hash"] != against.origin["hash"]:
        raise UserError(
            f"--against {against.id}: trained on {against.origin['name']}, {tuned.id} on {tuned.origin['name']}; "
            "compare runs of one base model"
        )
    side = load_side(tuned)
    backbones = [(run.manifest["model"], run.recipe.quantize) for run in (tuned, against)]
    if "full" in (tuned.tuning, against.tuning) or backbones[0] != backbones[1]:
        return load_side(against), side
    side.model.load_adapter(str(against.weights), adapter_name="against")
    return _adapted(against, side.model, "against"), side


def load_side(run: Run) -> Side:
    """What a run trained, as it answers.

    Raises:
        UserError: it gives no answers, or its base is no longer what it was.
    """
    run.require_answers()
    if run.tuning == "full":
        model = models.load_base(str(run.weights), run.recipe.precision).eval()
        return Side(run.id, model, models.load_tokenizer(str(run.weights)), nullcontext)
    return _adapted(run, adapters.load_adapter(_load_base(run), run.weights).eval(), "default")


def _load_base(run: Run) -> Any:
    origin = run.manifest["model"]
    if models.model_hash(origin["name"]) != origin["hash"]:
        raise UserError(f"model {origin['name']}: no longer the one that {run.id} was trained on")
    return models.load_base(origin["name"], run.recipe.precision, quantize=run.recipe.quantize)


def _adapted(run: Run, model: Any, adapter: str) -> Side:
    @contextmanager
    def active() -> Iterator[None]:
        model.set_adapter(adapter, inference_mode=True)
        yield

    return Side(run.id, model, models.load_tokenizer(str(run.weights)), active)
