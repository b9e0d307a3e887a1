"""A finished reward run at work: scores for answers, the higher the better liked."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from feedback.errors import UserError
from training import batches, finished
from training.runs import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Scorer:
    """A reward model on the device at hand.

    Args:
        name: of the run, as judgements record it.
        model: with a head of one score.
        max_length: tokens at which prompt and answer together are cut.
    """

    def __init__(self, name: str, model: Any, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> None:
        self.name, self.model, self.tokenizer, self.max_length = name, model, tokenizer, max_length

    def __call__(self, prompts: Sequence[Sequence[Mapping[str, str]]], answers: Sequence[str]) -> list[float]:
        """The score of each answer to the prompt at its place, read at its last token, the EOS.

        Only differences between answers to one prompt mean something: sigmoid of it is the probability (Bradley-Terry)
        that the one is preferred to the other.
        """
        pairs = (batches.encode(self.tokenizer, *pair) for pair in zip(prompts, answers, strict=True))
        rows = [{"input_ids": (prompt + answer)[: self.max_length]} for prompt, answer in pairs]
        return finished.outputs(self.model, rows, self.tokenizer.pad_token_id).squeeze(-1).tolist()


def require_scores(run: Run) -> None:
    """Make sure that a run is a finished reward model.

    Raises:
        UserError: it is no reward run, it did not finish, or its files are no longer what they were.
    """
    if run.head != "score":
        raise UserError(f"run {run.id}: a {run.manifest['method']} model, which gives no scores; name a reward run")
    run.verify_weights()


def load_scorer(run: Run) -> Scorer:
    """The reward model of a finished run.

    Raises:
        UserError: it is no reward run, it did not finish, or its files or its base are no longer what they were.
    """
    require_scores(run)
    assert run.recipe.max_length is not None
    return Scorer(run.id, *finished.load(run), run.recipe.max_length)
