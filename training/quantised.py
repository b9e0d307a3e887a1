"""4-bit bases (QLoRA, arXiv 2305.14314): NF4 with double quantisation, left as they were loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig

# A weight's 4 bits, 8 for the scale of each 64 of them, and 32 for each 256 scales (section 3, double quantisation).
BYTES_PER_WEIGHT = (4 + 8 / 64 + 32 / (64 * 256)) / 8


def config(compute: "torch.dtype") -> "BitsAndBytesConfig":
    """What transformers is told to load 4-bit weights.

    Args:
        compute: dtype to which a weight is brought back for each matrix product.
    """
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_quant_storage=torch.uint8,
    )


def keep_as_loaded(model: "torch.nn.Module") -> None:
    """Keep bitsandbytes from repacking weights for the CPU at the first forward pass in eval mode.

    Its packed kernel has no backward pass, so that training after it would go on with wrong gradients, and merging
    into packed weights gives garbage; neither is told.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def size(parameter: "torch.nn.Parameter") -> int:
    """How many weights a parameter stands for: of 4-bit ones, two share a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())


def constants(parameter: "torch.nn.Parameter") -> dict[str, "torch.Tensor"]:
    """The scales and tables without which a parameter's 4-bit codes mean nothing; none for an ordinary one."""
    import torch

    state = getattr(parameter, "quant_state", None)
    tensors = state.as_dict(packed=False) if state is not None else {}
    return {key: value for key, value in tensors.items() if isinstance(value, torch.Tensor)}


@contextmanager
def full_precision_adapters(model: "torch.nn.Module") -> Iterator[None]:
    """Undo what happens to trainable weights in the block.

    TRL rounds the adapters of 4-bit bases to bf16: a parent's adapter would no longer be its own reference, and small
    updates would be lost.
    """
    import torch

    four_bits = getattr(model, "is_loaded_in_4bit", False)
    kept = {name: p.detach().clone() for name, p in model.named_parameters() if four_bits and p.requires_grad}
    yield
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in kept:
                parameter.data = kept[name]
