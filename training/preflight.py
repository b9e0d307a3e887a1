"""What is checked before the first step: a run that could only fail silently is stopped with the reason."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from feedback.errors import UserError
from training.batches import IGNORED, Lengths, show
from training.errors import TrainingError
from training.recipe import SFTRecipe
from training.recipe_base import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_TRUNCATED = 0.5
# What of an encoded row is imitated.
ANSWERS = ("labels", "completion_ids", "chosen_ids", "rejected_ids")


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
    if share > MOST_TRUNCATED and recipe.head != "labels":
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


def check_supervision(
    collate: Callable[[list[Any]], Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], eos_token_id: int
) -> None:
    """Make sure that a batch's loss sees the end of every answer.

    Args:
        collate: rows to a batch, as the trainer does.
        rows: encoded rows of one batch.

    Raises:
        TrainingError: an EOS that the rows supervise is left out of the loss.
    """
    if not any(key in row for row in rows for key in ANSWERS):
        # What learns from scores of whole answers, or samples them itself, has no tokens that it imitates.
        return
    batch = collate([dict(row) for row in rows])
    mask = batch["labels"] != IGNORED if "labels" in batch else batch["completion_mask"]
    seen = int(((batch["input_ids"] == eos_token_id) & mask.bool()).sum())
    wanted = sum(list(row.get(key, ())).count(eos_token_id) for row in rows for key in ANSWERS)
    if seen < wanted:
        raise TrainingError(
            f"the loss of the first batch sees {seen} of the {wanted} EOS tokens that end its answers: the others are "
            "masked as padding is, so the model would not learn to stop; set a pad_token other than the EOS"
        )
