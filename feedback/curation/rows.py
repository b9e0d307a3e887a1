"""The rows of a version while it is built: in a file, in the order of their text, each with why it was dropped."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.curation.ballots import open_scratch
from feedback.curation.splits import split_of
from feedback.curation.words import same_text
from feedback.files import canonical_json
from feedback.schema import Demonstration, PreferencePair

KINDS: Mapping[str, type[PreferencePair] | type[Demonstration]] = {
    "pairs": PreferencePair,
    "demonstrations": Demonstration,
}


@dataclass(frozen=True)
class Row:
    """A row's number in the order of text, and its texts: the turns of the prompt, and the answers."""

    number: int
    turns: tuple[str, ...]
    answers: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """The prompt as one text, and each answer."""
        return ("\n".join(self.turns), *self.answers)


class Rows:
    """All rows of both kinds, and what was set aside before it became one.

    Args:
        path: a new file.
        fractions: see `splits.split_of`.
    """

    def __init__(self, path: Path, fractions: tuple[float, float, float]) -> None:
        self.fractions = fractions
        self.db = open_scratch(path)
        # identity: equal for rows that differ only in case and white space. longer: characters by which the chosen
        # answer is longer. band: how many binary digits that difference has.
        columns = "split TEXT, identity BLOB, longer INT, band INT, probability REAL, reason TEXT, because TEXT"
        self.db.execute(f"CREATE TABLE unsorted (kind TEXT, body TEXT, {columns})")
        self.db.execute(f"CREATE TABLE rows (number INTEGER PRIMARY KEY, kind TEXT, body TEXT, {columns})")
        self.db.execute("CREATE TABLE aside (line TEXT)")

    def add(self, record: PreferencePair | Demonstration) -> None:
        """A row that the later steps may drop."""
        kind, longer, probability = "demonstrations", None, None
        answers: tuple[str, ...]
        if isinstance(record, PreferencePair):
            kind, answers = "pairs", (record.chosen, record.rejected)
            longer, probability = len(record.chosen) - len(record.rejected), record.probability
        else:
            answers = (record.completion,)
        texts = [[message.role, same_text(message.content)] for message in record.prompt]
        identity = hashlib.sha256(canonical_json([texts, *map(same_text, answers)]).encode()).digest()[:16]
        band = None if longer is None else abs(longer).bit_length()
        split = split_of(record.prompt, self.fractions)
        body = record.model_dump_json()
        self.db.execute(
            "INSERT INTO unsorted VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
            (kind, body, split, identity, longer, band, probability),
        )

    def set_aside(self, line: Mapping[str, Any]) -> None:
        """What makes no row, with its reason."""
        self.db.execute("INSERT INTO aside VALUES (?)", (canonical_json(line),))

    def sort(self) -> None:
        """Put the rows in the order of their text, so that what comes of them depends on nothing else."""
        # Numbered from 1 without a gap, in the order of the sort.
        self.db.execute("INSERT INTO rows SELECT NULL, * FROM unsorted ORDER BY kind, body")
        self.db.execute("DROP TABLE unsorted")
        self.db.execute("CREATE INDEX by_identity ON rows (kind, identity)")

    def drop(self, number: int, reason: str, because: str | None = None) -> None:
        """Take a row out, and keep it with what was set aside."""
        self.db.execute("UPDATE rows SET reason = ?, because = ? WHERE number = ?", (reason, because, number))

    def standing(self, kind: str) -> Iterator[Row]:
        """The rows of a kind that nothing has dropped, in order. Rows may be dropped meanwhile."""
        bodies = self.db.execute(
            "SELECT number, body FROM rows WHERE kind = ? AND reason IS NULL ORDER BY number", (kind,)
        )
        return (_row(number, body) for number, body in bodies)

    def row(self, number: int) -> Row:
        """One row."""
        (body,) = self.db.execute("SELECT body FROM rows WHERE number = ?", (number,)).fetchone()
        return _row(number, body)

    def counts(self) -> dict[str, int]:
        """How many rows of each kind stand."""
        found = self.db.execute("SELECT kind, count(*) FROM rows WHERE reason IS NULL GROUP BY kind")
        return dict.fromkeys(KINDS, 0) | dict(found)

    def records(self, kind: str, split: str) -> Iterator[Any]:
        """The standing records of a split, in order."""
        bodies = self.db.execute(
            "SELECT body FROM rows WHERE kind = ? AND split = ? AND reason IS NULL ORDER BY number", (kind, split)
        )
        return (KINDS[kind].model_validate_json(body) for (body,) in bodies)

    def dropped(self) -> dict[tuple[str, str], int]:
        """How many rows were dropped, by reason and kind."""
        found = self.db.execute("SELECT reason, kind, count(*) FROM rows WHERE reason IS NOT NULL GROUP BY 1, 2")
        return {(reason, kind): count for reason, kind, count in found}

    def probabilities(self) -> dict[str, int]:
        """How many of the standing pairs have which probability, from undecided to certain."""
        tenths = self.db.execute(
            "SELECT min(4, (CAST(round(1000 * probability) AS INT) - 500) / 100) AS tenth, count(*) FROM rows "
            "WHERE kind = 'pairs' AND reason IS NULL GROUP BY tenth ORDER BY tenth"
        )
        return {f"{(tenth + 5) / 10} to {(tenth + 6) / 10}": count for tenth, count in tenths}

    def all_set_aside(self) -> Iterator[dict[str, Any]]:
        """Everything that is in no split, each with its reason, in the order of its text."""
        dropped = self.db.execute("SELECT reason, because, body FROM rows WHERE reason IS NOT NULL")
        self.db.executemany("INSERT INTO aside VALUES (?)", _lines(dropped))
        return (json.loads(line) for (line,) in self.db.execute("SELECT line FROM aside ORDER BY line"))


def _row(number: int, body: str) -> Row:
    record = json.loads(body)
    answers = (record["chosen"], record["rejected"]) if "chosen" in record else (record["completion"],)
    return Row(number, tuple(message["content"] for message in record["prompt"]), answers)


def _lines(dropped: Iterable[tuple[str, str | None, str]]) -> Iterator[tuple[str]]:
    for reason, because, body in dropped:
        yield (canonical_json({"reason": reason} | ({"because": because} if because else {}) | json.loads(body)),)
