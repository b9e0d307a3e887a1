"""The model of a run as it goes into training: its base with a fresh adapter, or with the parent's."""

from typing import TYPE_CHECKING

from training import adapters, models
from training.prepare import Prepared

if TYPE_CHECKING:
    from peft import PeftModel


def load(prepared: Prepared) -> "PeftModel":
    """Load what the recipe names, and make trainable what it trains.

    Raises:
        UserError: the base can't be loaded.
    """
    from transformers import set_seed

    recipe = prepared.recipe
    model = models.load_base(prepared.model, recipe.precision)
    # Before the adapter is made: its initial weights are drawn from this seed.
    set_seed(recipe.seed)
    if prepared.parent is not None:
        return adapters.load_adapter(model, prepared.parent.adapter, trainable=True)
    return adapters.add_adapter(model, recipe.lora)
