"""Sentences of an answer, with where they stand, for checks that judge a text piece by piece."""

import re
from dataclasses import dataclass

# A mark that ends a sentence, unless it is part of a number or follows an initial or a common abbreviation.
_END = re.compile(
    r"(?<!\b[A-Z])(?<!\b(?:Mr|Dr|St|vs|Jr|Sr))(?<!\b(?:Mrs|Gen|Col|Lt\.|etc|e\.g|i\.e))[.!?]+[\"”')\]]*(?=\s|$)|\n+"
)


@dataclass(frozen=True)
class Sentence:
    """A sentence and its place in the text, from `start` up to `end`."""

    text: str
    start: int
    end: int


def sentences(text: str) -> list[Sentence]:
    """The sentences of a text in order; together they hold all of it but the space between them."""
    ends = [match.end() for match in _END.finditer(text)]
    found, start = [], 0
    for end in [*ends, len(text)]:
        piece = text[start:end]
        if stripped := piece.strip():
            begin = start + piece.index(stripped)
            found.append(Sentence(stripped, begin, begin + len(stripped)))
        start = end
    return found
