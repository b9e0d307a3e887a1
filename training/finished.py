"""A finished run's model on the device at hand, for those who ask it: its base with the adapter, or its own weights."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from feedback.errors import UserError
from training import adapters, batches, models
from training.runs import Run

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

BATCH = 32


def load(run: Run) -> tuple[Any, "PreTrainedTokenizerBase"]:
    """The trained model and its tokenizer.

    Raises:
        UserError: its base is no longer what it was.
    """
    tokenizer = models.load_tokenizer(str(run.weights))
    if run.tuning == "full":
        model: Any = models.load_base(str(run.weights), run.recipe.precision, run.head, _labels(run))
    else:
        model = adapters.load_adapter(load_base(run), run.weights)
    if run.head != "causal-lm":
        # What is read is the last token that is none.
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model.eval(), tokenizer


def load_base(run: Run) -> Any:
    """What the run was trained on.

    Raises:
        UserError: it is no longer what it was.
    """
    recipe, base = run.recipe, run.manifest["model"]
    if models.model_hash(base["name"]) != base["hash"]:
        raise UserError(f"model {base['name']}: no longer the one that {run.id} was trained on")
    return models.load_base(base["name"], recipe.precision, run.head, _labels(run), recipe.quantize)


def outputs(model: Any, rows: Sequence[Mapping[str, Sequence[int]]], pad_token_id: int) -> "torch.Tensor":
    """What a head of scores or labels gives for rows of token ids, shape (rows, outputs), in fp32."""
    import torch

    # Rows of nearly one length share a batch.
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]["input_ids"]))
    found: list[torch.Tensor] = []
    for start in range(0, len(order), BATCH):
        batch = batches.padded([rows[place] for place in order[start : start + BATCH]], pad_token_id)
        with torch.inference_mode():
            logits = model(**{name: part.to(model.device) for name, part in batch.items()}, use_cache=False).logits
        found.append(logits.float().cpu())
    if not found:
        return torch.zeros(0, model.config.num_labels)
    return torch.cat(found)[torch.tensor(order).argsort()]


def _labels(run: Run) -> tuple[str, ...]:
    return run.labels if run.head == "labels" else ()
