"""LoRA adapters (arXiv 2106.09685): which layers they sit on in each architecture, made and loaded."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from feedback.errors import UserError
from training.recipe_base import Head, Lora

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

# What a layer does, by the end of its name in one architecture or another; the longest end that fits decides.
ROLES = {
    "q": "q_proj query query_proj q_lin wq Wqkv c_attn query_key_value qkv_proj",
    "k": "k_proj key key_proj k_lin wk",
    "v": "v_proj value value_proj v_lin wv",
    "o": "o_proj self_attn.out_proj attn.out_proj attention.out_proj out_lin wo attn.Wo attn.c_proj self_attn.dense "
    "attention.output.dense attention.dense self_attention.dense",
    "mlp": "gate_proj up_proj down_proj gate_up_proj fc1 fc2 fc_in fc_out lin1 lin2 c_fc mlp.c_proj Wi mlp.Wo "
    "intermediate.dense output.dense dense_h_to_4h dense_4h_to_h",
    "head": "lm_head embed_out score classifier classifier.out_proj classifier.dense pooler.dense",
}
TASK_TYPES: dict[Head, str] = {"causal-lm": "CAUSAL_LM", "score": "SEQ_CLS", "labels": "SEQ_CLS"}
PRESET_ROLES = {
    "attention-minimal": ("q", "v"),
    "attention": ("q", "v", "o"),
    "all-linear": ("q", "k", "v", "o", "mlp"),
}


def linear_layers(model: "PreTrainedModel") -> dict[str, "torch.nn.Module"]:
    """A model's linear layers by their full names."""
    import torch
    from transformers.pytorch_utils import Conv1D

    return {path: module for path, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)}


def lora_targets(lora: Lora, linear: Iterable[str]) -> list[str]:
    """The module names that a preset or a list stands for in this architecture.

    Args:
        linear: full names of the model's linear layers.

    Raises:
        UserError: a target matches nothing; the line lists what exists.
    """
    roles = {path: _role(path) for path in linear}
    found: list[str]
    missing: list[str]
    if isinstance(lora.targets, str):
        found = sorted({end for end, role in roles.values() if role in PRESET_ROLES[lora.targets]})
        missing = [] if found else [lora.targets]
    else:
        found = list(lora.targets)
        missing = [t for t in lora.targets if not any(path == t or path.endswith(f".{t}") for path in linear)]
    if missing:
        there = sorted({path.rsplit(".", 1)[-1] for path, (_, role) in roles.items() if role != "head"})
        raise UserError(*(f"lora.targets: {name!r} matches no layer; there are {', '.join(there)}" for name in missing))
    return found


def _role(path: str) -> tuple[str, str]:
    """The end of a layer's name that says what it does, and that; the role is empty where none is known."""
    ends = [(end, role) for role, names in ROLES.items() for end in names.split() if f".{path}".endswith(f".{end}")]
    return max(ends, key=lambda fit: len(fit[0]), default=("", ""))


def head_modules(model: "PreTrainedModel") -> list[str]:
    """The parts of a model with a head of scores or labels that stand above its layers, each of which can be new."""
    backbone = model.base_model_prefix
    above = [name for name, _ in model.named_children() if name != backbone]
    above += [name for name, _ in model.named_modules() if name == f"{backbone}.pooler"]
    return [name for name in above if list(model.get_submodule(name).parameters())]


def freeze_but_targets(model: "PreTrainedModel", lora: Lora, head: Head) -> None:
    """Leave trainable only what an adapter would sit on, and the head that it brings.

    Raises:
        UserError: a target matches nothing.
    """
    linear = linear_layers(model)
    targets = lora_targets(lora, linear)
    model.requires_grad_(False)
    for path, layer in linear.items():
        if any(path == t or path.endswith(f".{t}") for t in targets):
            layer.requires_grad_(True)
    if head != "causal-lm":
        for name in head_modules(model):
            model.get_submodule(name).requires_grad_(True)


def add_adapter(model: "PreTrainedModel", lora: Lora, head: Head = "causal-lm") -> "PeftModel":
    """Put a fresh LoRA adapter on a base; seed before, since this draws its initial weights.

    A head of scores or labels is trained whole, and belongs to the adapter.
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    linear = linear_layers(model)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        use_rslora=lora.rslora,
        target_modules=lora_targets(lora, linear),
        modules_to_save=None if head == "causal-lm" else head_modules(model),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in linear.values()),
        task_type=TASK_TYPES[head],
    )
    return get_peft_model(model, config)


def add_adapter_from(model: "PreTrainedModel", lora: Lora, head: Head, folder: Path) -> "PeftModel":
    """Put an adapter on a base with a new head that starts as one that was trained under another head.

    Raises:
        UserError: the other one does not sit on the same layers.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    adapted = add_adapter(model, lora, head)
    fresh, trained = get_peft_model_state_dict(adapted), load_file(folder / "adapter_model.safetensors")
    differ = {key for key in fresh if "lora_" in key} ^ trained.keys()
    if differ:
        raise UserError(f"parent: its adapter does not fit under a head of {head}, by {min(differ)}")
    set_peft_model_state_dict(adapted, fresh | trained)
    return adapted


def load_adapter(model: "PreTrainedModel", folder: Path, trainable: bool = False) -> "PeftModel":
    """Put a saved adapter on its base."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, use_safetensors=True)
