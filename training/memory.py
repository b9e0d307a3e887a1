"""How much memory a step needs at its peak, estimated before anything is loaded."""

import ctypes
from typing import TYPE_CHECKING, Any

from feedback.errors import UserError
from training import adapters, models, quantised
from training.recipe_base import Recipe

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Of a trainable weight: itself, its gradient, and AdamW's two moments, which bitsandbytes keeps in 8 bits.
FULL_STATE, SMALL_STATE = 4 + 4 + 8, 4 + 4 + 2
# The most tokens and words for which TRL's losses hold logits at a time.
TILE = (4096, 32768)
# malloc.h: from what size on an allocation is the system's own, given back when it is freed.
M_MMAP_THRESHOLD = -3
# What allocators hold beyond what is in use, measured (tests/benchmarks/memory.py).
RESERVED = 1.2


def return_at_once() -> None:
    """Let glibc give freed tensors back to the system; left to itself it keeps about as much again as a step needs."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**20)


def check(recipe: Recipe, config: Any, max_length: int, sequences: int) -> dict[str, Any]:
    """Estimate the peak memory of a step, in bytes, and compare it with what is free.

    Args:
        sequences: in the largest batch.

    Raises:
        UserError: more than is free.
    """
    import psutil
    import torch

    needed = estimate(recipe, config, max_length, sequences)
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available
    if needed > free:
        remedies = [
            f"lower batch_size (now {recipe.batch_size}; gradient_accumulation keeps the product) "
            f"or max_length (now {max_length})"
        ]
        remedies += [] if recipe.gradient_checkpointing else ["set gradient_checkpointing=true"]
        if recipe.tuning == "full":
            remedies.append("set tuning=lora")
        elif recipe.quantize != "nf4":
            remedies.append("set quantize=nf4")
        raise UserError(
            f"memory: a step needs about {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; "
            + ", or ".join(remedies)
        )
    return {"memory_needed": needed, "memory_free": free}


def estimate(recipe: Recipe, config: Any, max_length: int, sequences: int) -> int:
    """Bytes that a step needs at its peak: weights, what trains with its optimiser, activations and logits.

    What trains is kept in fp32; where that is all weights, DPO has a frozen copy of them. Of what processes share
    each has its part.
    """
    model = models.skeleton(config, recipe.head)
    width = 2 if models.computes_in_bf16(recipe.precision) else 4
    state = SMALL_STATE if recipe.optimizer.endswith("8bit") else FULL_STATE
    if recipe.tuning == "full":
        trained = sum(parameter.numel() for parameter in model.parameters())
        frozen: float = 4 * trained if recipe.method in ("dpo", "kto") else 0
    else:
        # PPO trains a value function beside the policy, and keeps a reference and a reward model as they are.
        roles = 2 if recipe.method == "ppo" else 1
        trained = _adapter_size(recipe, model) * roles
        frozen = _frozen(recipe, model, width) + (4 * trained if recipe.method == "ppo" else 0)
    part = 1 / (recipe.processes * recipe.nodes)
    of_state = part if recipe.sharding != "none" else 1
    of_weights = part if recipe.sharding in ("fsdp", "zero3") else 1
    weights = (frozen + 4 * trained) * of_weights + (state - 4) * trained * of_state
    tokens = sequences * max_length
    layers = 2 if recipe.gradient_checkpointing else config.num_hidden_layers
    activations = tokens * layers * _kept_values(config, model, max_length) * width
    logits = 0
    if recipe.head == "causal-lm":
        # The loss has five copies of a tile of TRL's, the check of the first step two of a whole row.
        tile = min(tokens, TILE[0]) * min(config.vocab_size, TILE[1])
        logits = 5 * 4 * tile + 2 * width * max_length * config.vocab_size
    return int((weights + activations + logits) * RESERVED)


def _kept_values(config: Any, model: "PreTrainedModel", max_length: int) -> float:
    """How many values a layer keeps of each token for the backward pass.

    Of a layer with a gated MLP (Llama's kind) they are counted: seven of hidden size (both norms' inputs and outputs,
    the query, the attention's output twice), key and value, and four of the MLP's size. Of others they are those of
    Korthikanti et al. (arXiv 2205.05198, equation 2), in units of two bytes.
    """
    hidden = config.hidden_size
    for path, layer in adapters.linear_layers(model).items():
        if path.endswith(("gate_proj", "gate_up_proj")):
            inner = _size(layer) // hidden // (2 if path.endswith("gate_up_proj") else 1)
            share = getattr(config, "num_key_value_heads", config.num_attention_heads) / config.num_attention_heads
            return (7 + 2 * share) * hidden + 4 * inner
    return (34 * hidden + 5 * config.num_attention_heads * max_length) / 2


def _adapter_size(recipe: Recipe, model: "PreTrainedModel") -> int:
    linear = adapters.linear_layers(model)
    targets = adapters.lora_targets(recipe.lora, linear)
    adapted = [layer for path, layer in linear.items() if any(path == t or path.endswith(f".{t}") for t in targets)]
    # A rank-r update of an m x n weight has r (m + n) parameters.
    return sum(recipe.lora.r * sum(p.shape) for layer in adapted for p in layer.parameters() if p.dim() == 2)


def _frozen(recipe: Recipe, model: "PreTrainedModel", width: int) -> float:
    """Bytes of a base that does not train."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if recipe.quantize != "nf4":
        return parameters * width
    from transformers.quantizers.base import get_keys_to_not_convert

    kept = set(get_keys_to_not_convert(model))
    sizes = [_size(layer) for path, layer in adapters.linear_layers(model).items() if path not in kept]
    # One weight at a time is brought back to full width.
    return (parameters - sum(sizes)) * width + sum(sizes) * quantised.BYTES_PER_WEIGHT + max(sizes) * width


def _size(layer: "torch.nn.Module") -> int:
    return sum(weight.numel() for name, weight in layer.named_parameters() if name == "weight")
