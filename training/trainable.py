"""The model of a run as it goes into training, and what of it is kept: an adapter, or all weights."""

from pathlib import Path
from typing import TYPE_CHECKING

from training import adapters, models
from training.prepare import Prepared

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def load(prepared: Prepared) -> "PreTrainedModel | PeftModel":
    """Load what the recipe names, and make trainable what it trains.

    Raises:
        UserError: the base can't be loaded.
    """
    from transformers import set_seed

    recipe, parent = prepared.recipe, prepared.parent
    full = recipe.tuning == "full"
    # Before head and adapter are made: their initial weights are drawn from this seed.
    set_seed(recipe.seed)
    # Steps at the usual learning rates are lost in bf16's eight bits, so weights that train are fp32.
    model = models.load_base(prepared.model, "fp32" if full else recipe.precision, recipe.head)
    if recipe.head != "causal-lm":
        # What is read is the last token that is none.
        model.config.get_text_config().pad_token_id = prepared.tokenizer.pad_token_id
    if parent is None or parent.tuning == "full":
        return model if full else adapters.add_adapter(model, recipe.lora, recipe.head)
    if parent.head != recipe.head:
        adapted = adapters.add_adapter_from(model, parent.recipe.lora, recipe.head, parent.weights)
    else:
        adapted = adapters.load_adapter(model, parent.weights, trainable=not full)
    return adapted.merge_and_unload().requires_grad_(True) if full else adapted


def count(model: "PreTrainedModel | PeftModel") -> tuple[int, int]:
    """How many parameters train, and how many there are."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def save(model: "PreTrainedModel | PeftModel", folder: Path) -> None:
    """Write what was trained as safetensors: the run's adapter, without DPO's frozen copy of it, or all weights."""
    from peft import PeftModel

    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder), selected_adapters=["default"])
    else:
        model.save_pretrained(str(folder))
