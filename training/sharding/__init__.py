"""One model spread over the GPUs of several processes: FSDP (version 2), and DeepSpeed's ZeRO (arXiv 1910.02054)."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import models
from training.recipe_base import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator

CONFIGS = Path(__file__).parent


def arguments(recipe: Recipe) -> dict[str, Any]:
    """The entries of TRL's configs by which a model is spread."""
    if recipe.sharding == "none":
        return {}
    config = json.loads((CONFIGS / f"{recipe.sharding}.json").read_text())
    if recipe.sharding == "fsdp":
        return {"fsdp": True, "fsdp_config": config}
    # DeepSpeed has one precision for all weights, and keeps those that train in fp32 beside.
    return {"deepspeed": config, "bf16": models.computes_in_bf16(recipe.precision)}


def mistakes(recipe: Recipe, cuda: bool) -> Iterator[str]:
    """Why a model can't be spread as a recipe asks, each with the remedy."""
    asked = recipe.sharding
    if asked == "none":
        return
    if not cuda:
        # accelerate would leave it out without a word.
        yield f"sharding: {asked} needs NVIDIA GPUs, and torch sees none; set sharding=none"
    if asked != "fsdp" and not find_spec("deepspeed"):
        yield f"sharding: {asked} needs deepspeed, which is not installed; pip install 'veritune[deepspeed]'"
    if recipe.processes * recipe.nodes == 1:
        yield f"sharding: {asked} spreads a model over several processes; set processes or nodes, or sharding=none"
    for key, unfit in {
        "quantize=nf4": recipe.quantize == "nf4",
        f"optimizer={recipe.optimizer}": recipe.optimizer != "adamw",
        f"discriminative={recipe.discriminative:g}": recipe.discriminative != 1,
        "gradual_unfreezing=true": recipe.gradual_unfreezing,
        # Parts of weights can't be set back to those of the best checkpoint.
        f"early_stopping={recipe.early_stopping}": asked == "zero3" and recipe.early_stopping is not None,
    }.items():
        if unfit:
            yield f"sharding: {asked} does not go with {key}; leave one of them out"


def require(accelerator: "Accelerator", recipe: Recipe) -> None:
    """Make sure that the model is spread as was asked for: what does not suit them libraries leave out in silence.

    Raises:
        RuntimeError: it is not.
    """
    found = {"FSDP": "fsdp", "DEEPSPEED": "zero"}.get(accelerator.distributed_type.value, "none")
    if found == "zero":
        found += str(accelerator.state.deepspeed_plugin.zero_stage)
    if found != recipe.sharding:
        raise RuntimeError(f"sharding={recipe.sharding} was asked for, {found} is in force")


def gathered(trainer: Any) -> dict[str, Any] | None:
    """A spread model's weights in one piece, in the first process; all must ask. None where it is in one piece."""
    if trainer.recipe.sharding == "none":
        return None
    if trainer.is_deepspeed_enabled and trainer.model_wrapped is trainer.model:
        # There was nothing left to train, so it was never spread.
        return None
    weights: dict[str, Any] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    # Brought together they are copies of each other, which are written once.
    tied = getattr(trainer.model, "all_tied_weights_keys", {})
    return {name: tensor for name, tensor in weights.items() if name not in tied}
