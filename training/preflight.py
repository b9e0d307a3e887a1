"""What is checked before the first step: a run that could only fail silently is stopped with the reason."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from feedback.errors import UserError
from training import adapters, models
from training.batches import Lengths, show
from training.recipe import Recipe, SFTRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MOST_TRUNCATED = 0.5


def check_rows(
    recipe: Recipe,
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[Mapping[str, list[int]]],
    lengths: Lengths,
    max_length: int,
) -> dict[str, Any]:
    """Check the encoded rows, and describe them for the log and the manifest.

    Raises:
        UserError: nothing to train on, or most answers cut off before their EOS.
    """
    if not rows:
        raise UserError(
            f"dataset {recipe.dataset}: its training split has no row for {recipe.method}"
            + (f" with a prompt under {max_length} tokens ({lengths.dropped} are longer)" if lengths.dropped else "")
            + ("; set examples=chosen to imitate its pairs" if isinstance(recipe, SFTRecipe) else "")
        )
    share = lengths.truncated / lengths.rows
    if share > MOST_TRUNCATED:
        raise UserError(
            f"max_length: {share:.0%} of the {lengths.rows} rows are cut off at {max_length} tokens, so most answers "
            "would never show their end; set a larger max_length, or a model with a longer context"
        )
    return {
        "rows": len(rows),
        "max_length": max_length,
        "truncated": lengths.truncated,
        "dropped_too_long": lengths.dropped,
        "example": show(tokenizer, rows[0]),
    }


def check_agreement(tokenizer: "PreTrainedTokenizerBase", config: Any, name: str) -> list[str]:
    """Where tokenizer and model contradict each other, each with its remedy."""
    mistakes = []
    if len(tokenizer) > config.vocab_size:
        mistakes.append(
            f"model {name}: its tokenizer has {len(tokenizer)} tokens, its embedding only {config.vocab_size}; "
            "take the tokenizer that belongs to the weights"
        )
    return mistakes


def sequences_at_once(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> int:
    """How many sequences the largest batch can have: pairs have two, a reward model's prompt all its answers."""
    of_each = sorted(
        (len(row["answers"]) if "answers" in row else 1 + ("chosen_ids" in row) for row in rows), reverse=True
    )
    return sum(of_each[: recipe.batch_size])


def check_memory(recipe: Recipe, config: Any, max_length: int, sequences: int) -> dict[str, Any]:
    """Estimate the peak memory of a step, in bytes, and compare it with what is free.

    The estimate counts the weights, what trains (the adapter, or all weights) with its gradient and AdamW's two moments
    in fp32, DPO's frozen copy of all weights where they train, the activations that are kept for the backward pass
    (Korthikanti et al., arXiv 2205.05198, section 4.1: about 34 bytes for each token, layer and hidden unit at two
    bytes a value), and the logits with their gradient.

    Args:
        sequences: in the largest batch.

    Raises:
        UserError: more than is free.
    """
    import psutil
    import torch

    model = models.skeleton(config, recipe.head)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    cuda = torch.cuda.is_available()
    weight_bytes = 2 if models.computes_in_bf16(recipe.precision) else 4
    if recipe.tuning == "full":
        weights = parameters * (16 + (4 if recipe.method == "dpo" else 0))
        remedies = "or set gradient_checkpointing=true or tuning=lora"
    else:
        weights = parameters * weight_bytes + 16 * _adapter_parameters(recipe, model)
        remedies = "or set gradient_checkpointing=true"
    tokens = sequences * max_length
    layers = 2 if recipe.gradient_checkpointing else config.num_hidden_layers
    activations = 17 * weight_bytes * tokens * layers * config.hidden_size
    logits = 2 * 4 * tokens * config.vocab_size if recipe.head == "causal-lm" else 0
    needed = weights + activations + logits
    free = torch.cuda.mem_get_info()[0] if cuda else psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"memory: a step needs about {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; lower batch_size "
            f"(now {recipe.batch_size}; gradient_accumulation keeps the product) or max_length (now {max_length}), "
            + remedies
        )
    return {"memory_needed": needed, "memory_free": free}


def _adapter_parameters(recipe: Recipe, model: "PreTrainedModel") -> int:
    linear = adapters.linear_layers(model)
    targets = adapters.lora_targets(recipe.lora, linear)
    adapted = [layer for path, layer in linear.items() if any(path == t or path.endswith(f".{t}") for t in targets)]
    # A rank-r update of an m x n weight has r (m + n) parameters.
    return sum(recipe.lora.r * sum(p.shape) for layer in adapted for p in layer.parameters() if p.dim() == 2)
