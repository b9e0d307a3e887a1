"""Answers that people labelled, as detectors are measured on them, from the files in which they were published."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.errors import UserError
from feedback.files import hash_file

SHOWN = 20


@dataclass(frozen=True)
class Labelled:
    """An answer and whether it is what a detector is to find.

    Args:
        positive: it is wrong or made up; among `abstentions`, that it declines to answer.
        context: what it has to stand on.
        references: accepted answers, where the detector is told them.
    """

    question: str
    answer: str
    positive: bool
    context: str | None = None
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelledSet:
    """The answers of one file, under the name that veritune.toml gives it.

    Args:
        hash: SHA-256 of the file.
    """

    name: str
    hash: str
    items: tuple[Labelled, ...]


def _halueval_human(row: Mapping[str, Any]) -> Iterator[Labelled]:
    labels = {"yes": True, "no": False}
    yield Labelled(_text(row, "user_query"), _text(row, "chatgpt_response"), labels[row["hallucination"]])


def _halueval(row: Mapping[str, Any]) -> Iterator[Labelled]:
    for column, positive in (("right_answer", False), ("hallucinated_answer", True)):
        yield Labelled(_text(row, "question"), _text(row, column), positive, _text(row, "knowledge"))


def _truthfulqa_answers(row: Mapping[str, Any]) -> Iterator[Labelled]:
    yield Labelled(_text(row, "question"), _text(row, "answer"), {True: False, False: True}[row["true"]])


def _efficientqa(row: Mapping[str, Any]) -> Iterator[Labelled]:
    accepted = tuple(map(str, row["answer"]))
    for column, positive in (("def_correct_predictions", False), ("def_incorrect_predictions", True)):
        for answer in row[column]:
            yield Labelled(_text(row, "question"), str(answer), positive, references=accepted)


def _abstentions(row: Mapping[str, Any]) -> Iterator[Labelled]:
    text = _text(row, "text")
    yield Labelled(text, text, {True: True, False: False}[row["abstains"]])


# By the name in evaluation.data: how a row is read, and the form that a row must have.
SETS: Mapping[str, tuple[Callable[[Mapping[str, Any]], Iterator[Labelled]], str]] = {
    "halueval_human": (_halueval_human, '{"user_query", "chatgpt_response", "hallucination": "yes" or "no"}'),
    "halueval": (_halueval, '{"knowledge", "question", "right_answer", "hallucinated_answer"}'),
    "truthfulqa_answers": (_truthfulqa_answers, '{"question", "answer", "true": true or false}'),
    "efficientqa": (_efficientqa, '{"question", "answer", "def_correct_predictions", "def_incorrect_predictions"}'),
    "abstentions": (_abstentions, '{"text", "abstains": true or false}'),
}


def read(name: str, path: Path, limit: int | None = None) -> LabelledSet:
    """The answers of a file of JSON lines.

    Args:
        name: of SETS.
        limit: take the first so many lines only.

    Raises:
        UserError: it can't be read, or lines are not as they should be; one line for each.
    """
    parse, form = SETS[name]
    items: list[Labelled] = []
    mistakes: list[str] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        fingerprint = hash_file(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"evaluation.data.{name}: {path} can't be read ({error})") from None
    for number, line in enumerate(lines[:limit], 1):
        try:
            items += parse(json.loads(line))
        except (ValueError, KeyError, TypeError):
            mistakes.append(f"{path}, line {number}: must be {form}")
    if mistakes:
        raise UserError(*mistakes[:SHOWN])
    return LabelledSet(name, fingerprint, tuple(dict.fromkeys(items)))


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise TypeError(column)
    return value
