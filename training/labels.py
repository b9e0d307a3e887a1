"""A finished classifier at work: how probable each label of an answer or a text is."""

from collections.abc import Mapping, Sequence
from typing import Any

from feedback.errors import UserError
from feedback.schema import Message
from training import finished
from training.classifier import encode_example
from training.labelled import Example
from training.runs import Run


class Labeller:
    """A classifier on the device at hand.

    Args:
        name: of the run.
        model: with a head of labels, whose names its configuration holds.
        max_length: tokens at which conversation and answer together are cut.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, max_length: int) -> None:
        self.name, self.model, self.tokenizer, self.max_length = name, model, tokenizer, max_length
        self.labels = tuple(model.config.id2label[place] for place in range(model.config.num_labels))

    def __call__(
        self, prompts: Sequence[Sequence[Mapping[str, str]]], answers: Sequence[str]
    ) -> list[dict[str, float]]:
        """Each label's probability, for each answer to the prompt at its place; no prompt stands for a text alone."""
        examples = [
            Example(tuple(Message(**message) for message in prompt), answer, "")
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        rows = [encode_example(self.tokenizer, example, self.max_length)[0] for example in examples]
        found = finished.outputs(self.model, rows, self.tokenizer.pad_token_id).softmax(-1)
        return [dict(zip(self.labels, of_row, strict=True)) for of_row in found.tolist()]


def load_labeller(run: Run) -> Labeller:
    """The classifier of a finished run.

    Raises:
        UserError: it is no classifier, it did not finish, or its files or its base are no longer what they were.
    """
    if run.head != "labels":
        raise UserError(f"run {run.id}: a {run.manifest['method']} model, which gives no labels; name a classifier run")
    run.verify_weights()
    max_length = run.recipe.max_length
    assert max_length is not None
    return Labeller(run.id, *finished.load(run), max_length)
