"""Texts with labels for a classifier: the answers of preference pairs, or a file of one's own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from feedback.curation.splits import split_of
from feedback.errors import UserError
from feedback.files import hash_file
from feedback.formats.rows import read_rows
from feedback.schema import Message, grounded_prompt, user_message
from feedback.versions import DatasetVersion
from training.recipe import Column

PAIR_LABELS = ("rejected", "chosen")
FILES = (".jsonl", ".json", ".csv", ".parquet", ".gz")
FRACTIONS = (0.8, 0.1, 0.1)
SHOWN = 20


@dataclass(frozen=True)
class Example:
    """What is to be labelled: an answer to a conversation, or a text alone.

    Args:
        prompt: empty where the text stands alone.
    """

    prompt: tuple[Message, ...]
    text: str
    label: str


@dataclass(frozen=True)
class LabelledFile:
    """A file of labelled texts, split by what is asked, in place of a dataset version.

    Args:
        fingerprint: SHA-256 of its bytes.
        labels: all that occur, in alphabetical order.
    """

    path: Path
    fingerprint: str
    labels: tuple[str, ...]
    examples: tuple[Example, ...]

    @property
    def id(self) -> str:
        return str(self.path)


Data = DatasetVersion | LabelledFile


def is_file(reference: str) -> bool:
    """Whether a recipe's `dataset` names a file and no dataset version."""
    return Path(reference).suffix.lower() in FILES


def read(path: Path, columns: Mapping[Column, str]) -> LabelledFile:
    """Read a file of {text, label} or {context, question, answer, label}, the context being optional.

    Args:
        columns: the file's own names for these, where they differ.

    Raises:
        UserError: what is wrong with each row, by its line; or fewer than two labels.
    """
    examples: list[Example] = []
    mistakes: list[str] = []
    for row in read_rows(str(path)):
        place = f"{path}, {row.unit} {row.number}"
        if row.value is None:
            mistakes.append(f"{place}: {row.reason}")
            continue
        try:
            examples.append(_example(row.value, columns))
        except ValueError as error:
            mistakes.append(f"{place}: {error}")
    if len(mistakes) > SHOWN:
        mistakes[SHOWN:] = [f"{path}: and {len(mistakes) - SHOWN} more such rows"]
    labels = tuple(sorted({example.label for example in examples}))
    if not mistakes:
        if len(labels) < 2:
            said = f"all {len(examples)} rows have the label {labels[0]!r}" if labels else "no rows"
            mistakes.append(f"{path}: {said}; a classifier tells at least two labels apart")
        missing = set(labels) - {example.label for example in examples if _split(example) == "train"}
        mistakes += [f"{path}: no row of label {name!r} falls into the training split; add some" for name in missing]
    if mistakes:
        raise UserError(*mistakes)
    return LabelledFile(path.resolve(), hash_file(path), labels, tuple(dict.fromkeys(examples)))


def labels_of(data: Data) -> tuple[str, ...]:
    """What a classifier trained on this tells apart, in the order of its outputs."""
    return data.labels if isinstance(data, LabelledFile) else PAIR_LABELS


def examples_of(data: Data, split: str) -> list[Example]:
    """The examples of a split; of pairs each answer is one, once for each label that it was given."""
    if isinstance(data, LabelledFile):
        return [example for example in data.examples if _split(example) == split]
    return list(dict.fromkeys(_answers(data, split)))


def _answers(version: DatasetVersion, split: str) -> Iterator[Example]:
    for pair in version.pairs(split):
        prompt = tuple(Message(**message) for message in pair["prompt"])
        for label in PAIR_LABELS:
            yield Example(prompt, pair[label], label)


def _split(example: Example) -> str:
    return split_of(example.prompt or user_message(example.text), FRACTIONS)


def _example(row: Mapping[str, Any], columns: Mapping[Column, str]) -> Example:
    """A row's example.

    Raises:
        ValueError: something is missing or no text.
    """
    names: dict[Column, str] = {column: columns.get(column, column) for column in get_args(Column)}
    label = row.get(names["label"])
    if not isinstance(label, str | int) or label == "":
        raise ValueError(f"{names['label']}: {_shown(label)}; must be a word or a whole number")
    if row.get(names["text"]) is not None:
        return Example((), _text(row, names["text"]), str(label))
    try:
        question, answer = _text(row, names["question"]), _text(row, names["answer"])
    except ValueError as error:
        raise ValueError(f"{error} (or one text in {names['text']})") from None
    context = _text(row, names["context"]) if row.get(names["context"]) else None
    return Example(grounded_prompt(user_message(question), context), answer, str(label))


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}: {_shown(value)}; must be text")
    return value


def _shown(value: Any) -> str:
    return "missing" if value in (None, "") else repr(value)[:60]
