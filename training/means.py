"""With what a recipe is carried out on this machine: whose kernels, which optimiser, and what replaces what."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from feedback.errors import UserError
from training import sharding
from training.recipe_base import Recipe

# What transformers calls them.
OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw-8bit": "adamw_bnb_8bit",
    "paged-adamw": "paged_adamw_32bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
}
# In the order in which `backend: auto` takes them; liger changes no more than layers' kernels.
BACKENDS = {"liger": "liger_kernel", "unsloth": "unsloth"}


@dataclass(frozen=True)
class Means:
    """What a run uses; `replaced` says in words where that isn't what its recipe asks for."""

    backend: str
    optimizer: str
    replaced: tuple[str, ...] = ()


def choose(recipe: Recipe, config: Any, place: str) -> Means:
    """What this machine has for a recipe.

    Args:
        config: the base model's.
        place: where the recipe stands, for what is wrong with it.

    Raises:
        UserError: the recipe names what is not installed or can't work here; one line for each.
    """
    import torch

    cuda = torch.cuda.is_available()
    mistakes = [f"recipe {place}: {mistake}" for mistake in _missing(recipe, config, cuda)]
    if mistakes:
        raise UserError(*mistakes)
    backend = recipe.backend
    if backend == "auto":
        fit = (name for name in BACKENDS if _obstacle(name, recipe, config, cuda) is None)
        backend = next(fit, "trl")  # type: ignore[arg-type]
    used = optimizer(recipe)
    replaced = f"optimizer: {recipe.optimizer} needs an NVIDIA GPU; used instead: {used}"
    return Means(backend, used, (replaced,) if used != recipe.optimizer else ())


def optimizer(recipe: Recipe) -> str:
    """The optimiser in force: pages need memory that CPU and GPU share."""
    import torch

    return recipe.optimizer if torch.cuda.is_available() else recipe.optimizer.removeprefix("paged-")


def _missing(recipe: Recipe, config: Any, cuda: bool) -> Iterator[str]:
    if not find_spec("bitsandbytes"):
        for key, value in (("quantize", recipe.quantize), ("optimizer", recipe.optimizer)):
            if value not in (None, "none", "adamw"):
                yield f"{key}: {value} needs bitsandbytes, which is not installed; pip install bitsandbytes"
    if recipe.quantize == "nf4" and recipe.tuning == "full":
        yield "quantize: nf4 weights can't be trained themselves; set tuning=lora or quantize=none"
    if recipe.backend in BACKENDS and (obstacle := _obstacle(recipe.backend, recipe, config, cuda)):
        yield f"backend: {recipe.backend} {obstacle}"
    yield from sharding.mistakes(recipe, cuda)


def _obstacle(backend: str, recipe: Recipe, config: Any, cuda: bool) -> str | None:
    """Why a backend can't carry out a recipe here, and the remedy; None where it can."""
    if not find_spec(BACKENDS[backend]):
        return f"is not installed; pip install 'veritune[{backend}]', or set backend=trl"
    if not cuda:
        return "needs an NVIDIA GPU, and torch sees none; set backend=trl"
    if backend == "unsloth":
        fit = recipe.method in ("sft", "dpo") and recipe.tuning == "lora" and not recipe.lora.dora
        return None if fit else "trains adapters by sft and dpo, without lora.dora; set backend=trl"
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    known = config.model_type in MODEL_TYPE_TO_APPLY_LIGER_FN
    return None if known else f"has no kernels for {config.model_type} models; set backend=trl"
