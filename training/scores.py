"""A finished reward run at work: scores for answers, the higher the better liked."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from feedback.errors import UserError
from training import adapters, batches, models
from training.runs import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 32


class Scorer:
    """A reward model on the device at hand.

    Args:
        name: of the run, as judgements record it.
        model: with a head of one score.
        max_length: tokens at which prompt and answer together are cut.
    """

    def __init__(self, name: str, model: Any, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> None:
        self.name, self.model, self.tokenizer, self.max_length = name, model.eval(), tokenizer, max_length

    def __call__(self, prompts: Sequence[Sequence[Mapping[str, str]]], answers: Sequence[str]) -> list[float]:
        """The score of each answer to the prompt at its place, read at its last token, the EOS.

        Only differences between answers to one prompt mean something: sigmoid of it is the probability (Bradley-Terry)
        that the one is preferred to the other.
        """
        import torch

        pairs = (batches.encode(self.tokenizer, *pair) for pair in zip(prompts, answers, strict=True))
        rows = [prompt + answer for prompt, answer in pairs]
        # Rows of nearly one length share a batch.
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        scores = [0.0] * len(rows)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            batch = batches.padded([rows[place][: self.max_length] for place in places], self.tokenizer.pad_token_id)
            with torch.inference_mode():
                logits = self.model(**{k: v.to(self.model.device) for k, v in batch.items()}, use_cache=False).logits
            for place, score in zip(places, logits.squeeze(-1).tolist(), strict=True):
                scores[place] = score
        return scores


def load_scorer(run: Run) -> Scorer:
    """The reward model of a finished run.

    Raises:
        UserError: it is no reward run, it did not finish, or its files or its base are no longer what they were.
    """
    if run.head != "score":
        raise UserError(f"run {run.id}: a {run.manifest['method']} model, which gives no scores; name a reward run")
    run.verify_weights()
    origin = run.manifest["model"]
    if models.model_hash(origin["name"]) != origin["hash"]:
        raise UserError(f"model {origin['name']}: no longer the one that {run.id} was trained on")
    full = run.tuning == "full"
    model: Any = models.load_base(str(run.weights) if full else origin["name"], run.recipe.precision, "score")
    tokenizer = models.load_tokenizer(str(run.weights))
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if not full:
        model = adapters.load_adapter(model, run.weights)
    assert run.recipe.max_length is not None
    return Scorer(run.id, model, tokenizer, run.recipe.max_length)
