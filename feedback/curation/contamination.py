"""Rows that give away a question of the evaluation.

The rule is GPT-3's (arXiv 2005.14165, section 4 and appendix C): a text leaks a question that shares N words in a row
with it, N being the fifth percentile of the lengths of a file's questions, and never below 8 or above 13; a question
of fewer words than N must stand in the text as a whole. Case and punctuation do not count. Two things are ours: a
question of fewer than 6 words must be a sentence or a line of its own ("What do you do?" is no leak in "what do you do
all day"), and N words that more than 10 different questions of a file share are its boilerplate, which gives no
question away.
"""

import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.curation.rows import Rows
from feedback.curation.words import words
from feedback.errors import UserError
from feedback.workspace import Workspace

FEWEST, MOST = 8, 13
PERCENTILE = 0.05
# Every sequence that is looked for is found by its first word and its sixth; shorter questions by the sentence.
ANCHOR = 6
SENTENCE_END = re.compile(r"[.!?:]\s|\n")
# In characters; fewer than ANCHOR words are never longer.
LONGEST_SENTENCE = 150
BOILERPLATE = 10
# The first of these that a row has holds what is asked.
FIELDS = ("question", "prompt", "instruction", "query", "turns", "messages", "input", "text")
REASON = "evaluation leak"
Words = tuple[str, ...]


@dataclass(frozen=True)
class EvaluationFile:
    """A file of questions that the workspace evaluates on: lines and their texts."""

    name: str
    questions: tuple[tuple[int, str], ...]


@dataclass
class Checked:
    """What came of one evaluation file.

    Args:
        words: N, the words in a row that make a leak.
        boilerplate: how many sequences were left out as such.
        leaked: how many of its questions some row gives away.
        rows: how many rows were dropped for it.
    """

    file: str
    questions: int
    words: int
    boilerplate: int
    leaked: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Leak:
    """Where a text and a question meet."""

    file: str
    line: int
    shared: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.shared}"


class Questions:
    """The evaluation's questions, ready to be found in texts."""

    def __init__(self, files: Sequence[EvaluationFile]) -> None:
        self.checked: list[Checked] = []
        self.leaked: dict[str, set[int]] = defaultdict(set)
        # Sequences of words by their first and sixth, then by their length; and questions that are a text of their own.
        self._sequences: dict[tuple[str, str], dict[int, dict[Words, Leak]]] = defaultdict(lambda: defaultdict(dict))
        self._whole: dict[Words, Leak] = {}
        for file in files:
            self._add(file)

    def _add(self, file: EvaluationFile) -> None:
        asked: dict[Words, int] = {}
        for line, text in file.questions:
            asked.setdefault(tuple(words(text)), line)
        asked.pop((), None)
        lengths = sorted(map(len, asked))
        n = min(max(lengths[int(PERCENTILE * len(lengths))], FEWEST), MOST) if lengths else FEWEST
        shared = Counter(run for question in asked for run in set(_runs(question, n)))
        boilerplate = {run for run, count in shared.items() if count > BOILERPLATE}
        self.checked.append(Checked(file.name, len(asked), n, len(boilerplate)))
        for question, line in asked.items():
            if len(question) < ANCHOR:
                self._whole.setdefault(question, Leak(file.name, line, " ".join(question)))
                continue
            for run in _runs(question, n):
                if run not in boilerplate:
                    leak = Leak(file.name, line, " ".join(run))
                    self._sequences[run[0], run[ANCHOR - 1]][len(run)].setdefault(run, leak)

    def find(self, text: str) -> Leak | None:
        """The first question that the text gives away."""
        for part in (text, *SENTENCE_END.split(text)) if self._whole else ():
            if len(part) < LONGEST_SENTENCE and (leak := self._whole.get(tuple(words(part)))):
                return leak
        split = words(text)
        for start, anchor in enumerate(zip(split, split[ANCHOR - 1 :], strict=False)):
            for length, sequences in self._sequences.get(anchor, {}).items():
                if leak := sequences.get(tuple(split[start : start + length])):
                    return leak
        return None


def evaluation_files(workspace: Workspace) -> list[EvaluationFile]:
    """The files that veritune.toml names under evaluation.questions and evaluation.decontaminate.

    Raises:
        UserError: a file can't be read, or a row of one asks nothing; a line for each.
    """
    settings = workspace.settings.evaluation
    names = dict.fromkeys([*settings.questions, *settings.decontaminate])
    files, mistakes = [], []
    for name in names:
        path = workspace.root / name
        try:
            rows = list(_read_rows(path))
        except (OSError, ValueError, csv.Error) as error:
            mistakes.append(f"{path}: named in veritune.toml under [evaluation], and can't be read ({error})")
            continue
        asked = [(line, text) for line, row in rows for text in _asked(row)]
        if missing := {line for line, _ in rows} - {line for line, _ in asked}:
            columns = ", ".join(FIELDS)
            mistakes.append(f"{path}, line {min(missing)}: asks nothing; one of its fields must be {columns}")
        files.append(EvaluationFile(name, tuple(asked)))
    if mistakes:
        raise UserError(*mistakes)
    return files


def drop_leaks(rows: Rows, kind: str, questions: Questions) -> Iterator[int]:
    """Drop the rows of a kind that give a question away, be it in their prompt or in an answer; a 1 for each row."""
    checked = {file.file: file for file in questions.checked}
    for row in rows.standing(kind):
        if leak := next(filter(None, map(questions.find, (*row.turns, *row.answers))), None):
            rows.drop(row.number, REASON, str(leak))
            checked[leak.file].rows += 1
            checked[leak.file].leaked += leak.line not in questions.leaked[leak.file]
            questions.leaked[leak.file].add(leak.line)
        yield 1


def _read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            reader = csv.DictReader(file)
            yield from ((reader.line_num, row) for row in reader)
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is no JSON object")
                yield number, row


def _asked(row: Mapping[str, Any]) -> list[str]:
    """The texts of the first field that holds any: one text, several turns, or messages, of which the user's count."""
    by_name = {str(name).casefold(): value for name, value in row.items()}
    for field in FIELDS:
        value = by_name.get(field)
        texts = value if isinstance(value, list) else [value]
        said = [
            text.get("content") if isinstance(text, dict) and text.get("role", "user") == "user" else text
            for text in texts
        ]
        if found := [text for text in said if isinstance(text, str) and text.strip()]:
            return found
    return []


def _runs(question: Words, n: int) -> Iterator[Words]:
    """Every n words in a row; all of the words where there are fewer."""
    return (question[start : start + n] for start in range(max(1, len(question) - n + 1)))
