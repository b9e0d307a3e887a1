"""Does an answer stand on the text that it was given? Each sentence is judged against the context by itself.

The judge is a classifier that was trained on answers with their contexts, or natural-language inference with the
context as the premise (SummaC, Laban et al., arXiv 2111.09525, by sentences of the answer).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.hallucination.entailment import Entailment
from evaluation.hallucination.sentences import Sentence, sentences
from feedback.errors import UserError
from feedback.schema import grounded_prompt, user_message
from training.abstention import abstains

if TYPE_CHECKING:
    from training.labels import Labeller

# A sentence is marked where it is likelier than not made up.
SURE = 0.5
# What a classifier's label for it is called where the settings say nothing.
LABELS = ("hallucinated", "hallucination", "ungrounded", "unsupported", "rejected")

# Contexts, questions and sentences in; how probable it is that a sentence does not stand on its context out.
Grounding = Callable[[Sequence[tuple[str, str, str]]], Sequence[float]]
Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Grounded:
    """An answer's worst sentence, 0 to 1, and the places of those that are marked."""

    score: float
    spans: Spans


def ungrounded(answers: Sequence[tuple[str, str, str]], judge: Grounding) -> list[Grounded]:
    """How far each answer goes beyond its context; one that declines to answer, or is empty, claims nothing.

    Args:
        answers: context, question and answer.
    """
    parts: list[list[Sentence]] = [[] if abstains(answer) else sentences(answer) for _, _, answer in answers]
    asked = [
        (context, question, part.text)
        for (context, question, _), of_answer in zip(answers, parts, strict=True)
        for part in of_answer
    ]
    found = iter(judge(asked) if asked else ())
    judged = [[(part, next(found)) for part in of_answer] for of_answer in parts]
    return [
        Grounded(
            max((value for _, value in of_answer), default=0.0),
            tuple((part.start, part.end) for part, value in of_answer if value > SURE),
        )
        for of_answer in judged
    ]


def by_entailment(entailment: Entailment) -> Grounding:
    """What the context does not entail, each sentence being read after its question."""

    def judge(asked: Sequence[tuple[str, str, str]]) -> list[float]:
        pairs = [(context, f"{question} {sentence}") for context, question, sentence in asked]
        return [1 - verdict.entails for verdict in entailment(pairs)]

    return judge


def by_classifier(labeller: "Labeller", label: str | None = None) -> Grounding:
    """What a classifier run gives its label for made-up answers.

    Args:
        label: its name; None takes the one of LABELS that the classifier has.

    Raises:
        UserError: the classifier has no such label.
    """
    wanted = (label,) if label else LABELS
    named = [each for each in labeller.labels if each in wanted or (not label and each.casefold() in wanted)]
    if len(named) != 1:
        raise UserError(
            f"evaluation.grounded_label: {label or 'not set'}; the labels of {labeller.name} are "
            f"{', '.join(labeller.labels)}: name the one that says made up"
        )

    def judge(asked: Sequence[tuple[str, str, str]]) -> list[float]:
        prompts = [grounded_prompt(user_message(question), context) for context, question, _ in asked]
        conversations = [[message.model_dump() for message in prompt] for prompt in prompts]
        found = labeller(conversations, [sentence for _, _, sentence in asked])
        return [probabilities[named[0]] for probabilities in found]

    return judge
