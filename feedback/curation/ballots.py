"""All votes on a pair together, whichever candidates and collections they came from, in a file and not in memory."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from feedback.curation.aggregate import PairKey, Vote, votes_on
from feedback.curation.reliability import Pattern, pattern_of
from feedback.database import Database
from feedback.files import content_hash
from feedback.schema import Candidate, Judgement, grounded_prompt


@dataclass(frozen=True)
class Pair:
    """One pair of answers with the votes on it.

    Args:
        id: equal for equal pairs, and in no relation to their text: the first so many of them are a random sample.
        places: collection and candidate of each vote, where a vote came from.
    """

    id: bytes
    key: PairKey
    votes: tuple[Vote, ...]
    places: tuple[tuple[str, str], ...]


class BallotBox:
    """The votes on pairs, in the order of the pairs' ids.

    Args:
        path: a new file.
        database: where the texts of the pairs stay.
    """

    def __init__(self, path: Path, database: Database) -> None:
        self.database = database
        self._votes = open_scratch(path)
        self._votes.execute(
            "CREATE TABLE votes (pair BLOB, collection TEXT, candidate TEXT, response_a INT, response_b INT, "
            "rater TEXT, kind TEXT, for_first REAL, both_bad INT, judgement TEXT)"
        )

    def add(self, collection: str, candidate: Candidate, judgement: Judgement) -> None:
        """Take down what a judgement says of each pair."""
        places = {response.text: index for index, response in enumerate(candidate.responses)}
        for key, vote in votes_on(candidate, judgement):
            prompt, first, second = key
            texts = [[turn.role, turn.content] for turn in prompt], first, second
            pair = bytes.fromhex(content_hash(texts))[:16]
            place = (pair, collection, candidate.id, places[first], places[second])
            said = (vote.rater, vote.kind, vote.for_first, vote.both_bad, vote.judgement)
            self._votes.execute("INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", place + said)

    def sort(self) -> None:
        """Bring the votes on each pair together; to be called once, when all are in."""
        self._votes.execute("CREATE TABLE sorted AS SELECT * FROM votes ORDER BY pair, judgement")
        self._votes.execute("DROP TABLE votes")

    def pairs(self) -> Iterator[Pair]:
        """Every pair with its votes."""
        for rows in self._groups():
            pair, collection, candidate_id, a, b = rows[0][:5]
            candidate = self.database.candidate(collection, candidate_id)
            prompt = grounded_prompt(candidate.prompt, candidate.context)
            key = (prompt, candidate.responses[a].text, candidate.responses[b].text)
            yield Pair(pair, key, tuple(map(_vote, rows)), tuple((row[1], row[2]) for row in rows))

    def patterns(self, raters: int) -> Counter[Pattern]:
        """What so many raters or more said of one pair, and of how many pairs they said just that."""
        found = (tuple(map(_vote, rows)) for rows in self._groups())
        return Counter(pattern_of(votes) for votes in found if len({vote.rater for vote in votes}) >= raters)

    def count(self) -> int:
        """How many pairs there are."""
        return self._votes.execute("SELECT count(DISTINCT pair) FROM sorted").fetchone()[0]

    def close(self) -> None:
        """Let go of the file."""
        self._votes.close()

    def _groups(self) -> Iterator[list[tuple]]:
        rows = self._votes.execute("SELECT * FROM sorted ORDER BY rowid")
        return (list(group) for _, group in groupby(rows, key=lambda row: row[0]))


def open_scratch(path: Path) -> sqlite3.Connection:
    """A database for what is thrown away: nothing is synced, and sorting spills to disk."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", "cache_size=-32768"):
        connection.execute(f"PRAGMA {pragma}")
    # Without a transaction around them SQLite would lock and unlock the file for each row.
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def _vote(row: tuple) -> Vote:
    *_, rater, kind, for_first, both_bad, judgement = row
    return Vote(rater, kind, for_first, bool(both_bad), judgement)
