"""The model of a run as it goes into training, and what of it is kept: an adapter, or all weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import adapters, models, quantised
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
    model = _base(prepared)
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
    sizes = [(quantised.size(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def save(model: "PreTrainedModel | PeftModel", folder: Path, weights: dict[str, Any] | None = None) -> None:
    """Write what was trained as safetensors: the run's adapter, without DPO's frozen copy of it, or all weights.

    An adapter with a head has the configuration beside it, which names its labels.

    Args:
        weights: the model's, in one piece, where it is spread over processes itself.
    """
    from peft import PeftModel

    if isinstance(model, PeftModel):
        config = model.peft_config["default"]
        # PEFT keeps them as a set, whose order differs between processes, and with it the file.
        config.target_modules = sorted(config.target_modules)
        model.save_pretrained(str(folder), selected_adapters=["default"], state_dict=weights)
        if model.peft_config["default"].task_type == "SEQ_CLS":
            model.config.save_pretrained(str(folder))
    else:
        model.save_pretrained(str(folder), state_dict=weights)


def _base(prepared: Prepared) -> "PreTrainedModel":
    """The frozen base with the kernels of the run's backend."""
    recipe = prepared.recipe
    # Steps at the usual learning rates are lost in bf16's eight bits, so weights that train are fp32.
    precision = "fp32" if recipe.tuning == "full" else recipe.precision
    if prepared.means.backend == "unsloth":
        import torch
        from unsloth import FastLanguageModel

        # By its exact name: Unsloth would take weights of its own that go by a similar one.
        model, _ = FastLanguageModel.from_pretrained(
            prepared.model,
            max_seq_length=prepared.max_length,
            dtype=torch.bfloat16 if models.computes_in_bf16(precision) else torch.float32,
            load_in_4bit=recipe.quantize == "nf4",
            use_gradient_checkpointing=recipe.gradient_checkpointing,
            use_exact_model_name=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
        return model
    # Not on the GPU before it is spread: it may be too large for one.
    device = None if recipe.sharding == "none" else "cpu"
    model = models.load_base(prepared.model, precision, recipe.head, prepared.labels, recipe.quantize, device)
    if prepared.means.backend == "liger":
        from transformers.integrations.liger import apply_liger_kernel

        # Without its loss, which hides the logits that our losses and checks read.
        apply_liger_kernel(model, {"fused_linear_cross_entropy": False})
    return model
