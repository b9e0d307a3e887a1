"""The model of a run as it goes into training: its base and head with a fresh adapter, or with the parent's."""

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
    # Before head and adapter are made: their initial weights are drawn from this seed.
    set_seed(recipe.seed)
    model = models.load_base(prepared.model, recipe.precision, recipe.head)
    if recipe.head != "causal-lm":
        # What is read is the last token that is none.
        model.config.get_text_config().pad_token_id = prepared.tokenizer.pad_token_id
    if prepared.parent is None:
        return adapters.add_adapter(model, recipe.lora, recipe.head)
    if prepared.parent.head != recipe.head:
        return adapters.add_adapter_from(model, recipe.lora, recipe.head, prepared.parent.adapter)
    return adapters.load_adapter(model, prepared.parent.adapter, trainable=True)
