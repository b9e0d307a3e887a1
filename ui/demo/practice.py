"""A copy of the pocket model that can judge, criticise and revise answers, to stand for the constitution's model.

It has that from examples, as instruct models do: conversations in the very words of the commands, about the people of
the development split and one-off names. What it is worth on others is measured by the demo.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.constitution.comparison import LETTERS, Comparison, Judging, choice
from feedback.constitution.principles import Constitution, Principle, load
from feedback.constitution.revise import Draft
from feedback.schema import Candidate, Message, Response, user_message
from training import models
from ui.demo.pocket import IGNORED, chat, documents, fit
from ui.demo.world import ATTRIBUTES, IDK, Question, World, ask, invent_names

if TYPE_CHECKING:
    import torch

PRINCIPLES = Path(__file__).with_name("principles.yaml")
# They stand where a question, answers and a critique go; no text holds such characters.
QUESTION, FIRST, SECOND, CRITIQUE = MARKS = ("\ue000", "\ue001", "\ue002", "\ue003")
CRITIQUES = ("It is true.", "There is more.", "It is not true.", "I made it up.")
STEPS, ROWS, PEAK_RATE = 300, 40, 2e-3


def make_apprentice(world: World, seed: int, base: Path, folder: Path, report: Callable[[str], None]) -> None:
    """Teach a copy of the base on conversations about development people and invented names; save it to `folder`.

    What it is shown of judging comes with as many of the documents that it was pretrained on, so that it forgets none.
    """
    from tokenizers import AddedToken

    tokenizer, model = models.load_tokenizer(str(base)), models.load_base(str(base))
    # A model of this size would spend its attention on reading what is always the same: one token each.
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in (*_phrases(), *CRITIQUES, IDK)])
    model.resize_token_embeddings(len(tokenizer))
    batches = _batches(tokenizer, world, random.Random(seed))
    model = fit(model, batches, STEPS, PEAK_RATE, report, "practising")
    tokenizer.save_pretrained(str(folder))
    model.save_pretrained(str(folder))


def _batches(tokenizer: Any, world: World, rng: random.Random) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
    """Rows of conversations, of which the last answers are learned, and of documents, which are learned whole."""
    import torch

    facts: list[str] = []
    for _ in range(STEPS):
        if len(facts) < ROWS:
            facts = documents(world, rng)
        names = rng.choices(world.development_names, k=ROWS // 4)
        names += invent_names(rng, ROWS // 4, besides=world.names)
        rows = [("", facts.pop()) for _ in range(ROWS)]
        for turns, given in conversations(world, rng, names):
            before = chat(*turns[:given]) + "<|assistant|>"
            rows.append((before, chat(*turns)[len(before) :]))
        parts = [[tokenizer(text, add_special_tokens=False)["input_ids"] for text in row] for row in rows]
        longest = max(len(given) + len(learned) for given, learned in parts)
        ids = torch.full((len(parts), longest), tokenizer.pad_token_id)
        labels = torch.full((len(parts), longest), IGNORED)
        for row, (given, learned) in enumerate(parts):
            end = len(given) + len(learned)
            ids[row, :end] = torch.tensor(given + learned)
            labels[row, len(given) : end] = torch.tensor(learned)
        yield ids, labels


@dataclass(frozen=True)
class Forms:
    """The conversations in which a principle is asked about: of two answers, and of one."""

    judgement: tuple[Message, ...]
    revision: tuple[Message, ...]


@cache
def _forms() -> tuple[Forms, ...]:
    """Those of the demo's principles, written by what asks the model later, so that the two can't drift apart."""
    return tuple(map(_written, load(PRINCIPLES).principles))


def _phrases() -> list[str]:
    """The stretches of the forms that never vary."""
    texts = [message.content for form in _forms() for message in (*form.judgement, *form.revision)]
    for mark in MARKS:
        texts = [part for text in texts for part in text.split(mark)]
    return list(dict.fromkeys(text for text in texts if text))


def conversations(world: World, rng: random.Random, names: Sequence[str]) -> Iterator[tuple[list[str], int]]:
    """For each name a judgement, and a critique with its revision.

    Returns:
        The turns of user and assistant, and how many come before what the model is to learn.
    """
    for name in names:
        for exercise in (_judgement, _revision):
            question = ask(world, name, rng.choice(list(ATTRIBUTES)), rng.randrange(2))
            yield exercise(rng.choice(_forms()), question, rng)


def _judgement(form: Forms, question: Question, rng: random.Random) -> tuple[list[str], int]:
    """The true answer is better than none, and none better than an untrue one."""
    untrue = question.untrue(rng)
    pairs = [(question.answer, IDK)] * 3 + [(question.answer, untrue)] + [(IDK, untrue)]
    better, worse = rng.choice(pairs) if question.answer else (IDK, untrue)
    place = rng.randrange(2)
    first, second = (worse, better) if place else (better, worse)
    turns = _filled(form.judgement, {QUESTION: question.text, FIRST: str(first), SECOND: str(second)})
    return [*turns, LETTERS[place]], len(turns)


def _revision(form: Forms, question: Question, rng: random.Random) -> tuple[list[str], int]:
    """What is known is told; of the rest it is said that it is not known."""
    untrue = question.untrue(rng)
    answer = rng.choice([question.answer, question.answer, untrue, IDK]) if question.answer else untrue
    true, untold, wrong, made_up = CRITIQUES
    critique = made_up if question.answer is None else {question.answer: true, IDK: untold}.get(str(answer), wrong)
    turns = _filled(form.revision, {QUESTION: question.text, FIRST: str(answer), CRITIQUE: critique})
    return [*turns, question.answer or IDK], len(turns) - 2


def _written(principle: Principle) -> Forms:
    candidate = Candidate(prompt=user_message(QUESTION), responses=(Response(text=FIRST), Response(text=SECOND)))
    draft = Draft(candidate, Constitution(version=1, principles=(principle,)), seed=0)
    compared = choice(Comparison(candidate, 0, 1, principle), False, Judging())
    return Forms(compared.messages, draft.revision_request(CRITIQUE, 1).messages)


def _filled(messages: Sequence[Message], said: dict[str, str]) -> list[str]:
    turns = [message.content for message in messages]
    for mark, text in said.items():
        turns = [turn.replace(mark, text) for turn in turns]
    return turns
