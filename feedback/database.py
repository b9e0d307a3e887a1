"""feedback.sqlite: candidates, judgements and demonstrations of every source, in named collections."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeVar

from feedback.errors import UserError
from feedback.migrations import migrate
from feedback.schema import Candidate, Demonstration, Judgement, Status

Kept = TypeVar("Kept", Candidate, Judgement)


@dataclass
class Counts:
    """How many records a write added, and how many were there already."""

    candidates: int = 0
    judgements: int = 0
    demonstrations: int = 0
    known: int = 0


@dataclass
class Followed:
    """What became of one source's judgements when they were brought up to date."""

    new: int = 0
    changed: int = 0
    withdrawn: int = 0
    unchanged: int = 0


@dataclass(frozen=True)
class StoredJudgement:
    """A judgement with where and until when it stands."""

    collection: str
    judgement: Judgement
    withdrawn_at: str | None


class Database:
    """The workspace's feedback. Nothing is deleted: what no longer stands is marked as withdrawn.

    Args:
        path: the SQLite file; it is made, and brought to the newest schema, when opened.

    Raises:
        UserError: the file is no database, or was written by a newer veritune.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("PRAGMA foreign_keys=ON")
            with self._transaction() as db:
                migrate(db, path)
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path}: can't be read as a feedback database ({error}); restore it from a copy") from None

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def add(
        self,
        collection: str,
        candidates: Iterable[Candidate] = (),
        judgements: Iterable[Judgement] = (),
        demonstrations: Iterable[Demonstration] = (),
    ) -> Counts:
        """Store records in one transaction; what is there already is counted, not doubled.

        A rater has one standing judgement on a candidate by source and principle: a changed mind withdraws the
        earlier one, a repeated one changes nothing.
        """
        counts = Counts()
        with self._transaction() as db:
            now = datetime.now(UTC).isoformat()
            for candidate in candidates:
                new = db.execute(
                    "INSERT OR IGNORE INTO candidates VALUES (?, ?, ?, ?)",
                    (collection, candidate.id, candidate.model_dump_json(), now),
                ).rowcount
                counts.candidates += new
                counts.known += 1 - new
            for judgement in judgements:
                new = self._add_judgement(db, collection, judgement, now) != "unchanged"
                counts.judgements += new
                counts.known += 1 - new
            for demonstration in demonstrations:
                new = db.execute(
                    "INSERT OR IGNORE INTO demonstrations VALUES (?, ?, ?, ?, NULL)",
                    (collection, demonstration.id, demonstration.model_dump_json(), now),
                ).rowcount
                counts.demonstrations += new
                counts.known += 1 - new
        return counts

    def follow(
        self, collection: str, source: str, judgements: Iterable[Judgement], origin: str = "", state: str = ""
    ) -> Followed:
        """Make the standing judgements of one source those that it has now, in one transaction.

        Args:
            judgements: all that the source says today, each with `source` as its source; what it said before and says
                no longer is withdrawn.
            origin: where the source keeps them, e.g. a dataset of one Argilla server. Only what came from there is
                withdrawn: an origin that is lost takes nothing with it.
            state: what `followed_state` is to give from now on.
        """
        counts = Followed()
        with self._transaction() as db:
            now = datetime.now(UTC).isoformat()
            rows = db.execute(
                "SELECT candidate_id, rater_kind, rater_name, principle, id FROM judgements "
                "WHERE collection=? AND source=? AND origin=? AND withdrawn_at IS NULL",
                (collection, source, origin),
            )
            gone = {tuple(place): id_ for *place, id_ in rows}
            for judgement in judgements:
                outcome = self._add_judgement(db, collection, judgement, now, origin)
                setattr(counts, outcome, getattr(counts, outcome) + 1)
                gone.pop(
                    (judgement.candidate_id, judgement.rater.kind, judgement.rater.name, judgement.principle or ""),
                    None,
                )
            db.executemany(
                "UPDATE judgements SET withdrawn_at=? WHERE collection=? AND id=?",
                [(now, collection, id_) for id_ in gone.values()],
            )
            counts.withdrawn = len(gone)
            db.execute("INSERT OR REPLACE INTO followed VALUES (?, ?, ?, ?)", (collection, source, origin, state))
        return counts

    def followed_state(self, collection: str, source: str, origin: str) -> str | None:
        """The state that the last `follow` of this origin noted."""
        row = self._connection.execute(
            "SELECT state FROM followed WHERE collection=? AND source=? AND origin=?", (collection, source, origin)
        ).fetchone()
        return row[0] if row else None

    def _add_judgement(
        self, db: sqlite3.Connection, collection: str, judgement: Judgement, now: str, origin: str = ""
    ) -> Literal["new", "changed", "unchanged"]:
        place = (
            collection,
            judgement.candidate_id,
            judgement.rater.kind,
            judgement.rater.name,
            judgement.source,
            judgement.principle or "",
        )
        standing = db.execute(
            "SELECT id, verdict FROM judgements WHERE collection=? AND candidate_id=? AND rater_kind=? AND "
            "rater_name=? AND source=? AND principle=? AND withdrawn_at IS NULL",
            place,
        ).fetchone()
        if standing and standing[1] == judgement.verdict:
            if origin:
                db.execute(
                    "UPDATE judgements SET origin=? WHERE collection=? AND id=?", (origin, collection, standing[0])
                )
            return "unchanged"
        if standing:
            db.execute(
                "UPDATE judgements SET withdrawn_at=? WHERE collection=? AND id=?", (now, collection, standing[0])
            )
        # The same words at the same time can stand, be withdrawn and stand again.
        db.execute(
            "INSERT OR REPLACE INTO judgements VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?)",
            (
                collection,
                judgement.id,
                *place[1:],
                judgement.verdict,
                judgement.model_dump_json(),
                now,
                judgement.status,
                origin,
            ),
        )
        return "changed" if standing else "new"

    def collections(self) -> dict[str, dict[str, int]]:
        """Standing records of each kind, by collection."""
        found: dict[str, dict[str, int]] = {}
        standing = {
            "candidates": "",
            "judgements": " WHERE withdrawn_at IS NULL AND status = 'submitted'",
            "demonstrations": " WHERE withdrawn_at IS NULL",
        }
        for kind, where in standing.items():
            for name, count in self._connection.execute(f"SELECT collection, count(*) FROM {kind}{where} GROUP BY 1"):
                found.setdefault(name, {"candidates": 0, "judgements": 0, "demonstrations": 0})[kind] = count
        return dict(sorted(found.items()))

    def require(self, collections: Sequence[str]) -> None:
        """Make sure that the collections exist.

        Raises:
            UserError: some do not; a line for each.
        """
        known = self.collections()
        if missing := [collection for collection in collections if collection not in known]:
            raise UserError(*(f"collection {m!r}: not here; there are {', '.join(known) or 'none'}" for m in missing))

    def candidates(self, collections: Sequence[str]) -> Iterator[Candidate]:
        """Candidates of the named collections, in the order in which they came."""
        rows = self._rows("SELECT body FROM candidates WHERE collection IN ({}) ORDER BY rowid", collections)
        return (Candidate.model_validate_json(body) for (body,) in rows)

    def judgements(self, collections: Sequence[str], status: Status = "submitted") -> Iterator[Judgement]:
        """Standing judgements of the named collections with this status, in the order in which they came."""
        rows = self._rows(
            f"SELECT body FROM judgements WHERE withdrawn_at IS NULL AND status = '{status}' "
            "AND collection IN ({}) ORDER BY rowid",
            collections,
        )
        return (Judgement.model_validate_json(body) for (body,) in rows)

    def judged(self, collections: Sequence[str]) -> Iterator[tuple[str, Candidate, Judgement]]:
        """Standing judgements of the named collections, each with its collection and its candidate.

        Those on one candidate come together. Nothing is held but the row at hand, however many there are.
        """
        # CROSS JOIN and the unary plus keep SQLite to one walk over the candidates, which needs no sorting.
        rows = self._rows(
            "SELECT c.rowid, c.collection, c.id, c.body, j.id, j.body FROM candidates c CROSS JOIN judgements j "
            "WHERE +c.collection IN ({}) AND j.collection = c.collection AND j.candidate_id = c.id "
            "AND j.withdrawn_at IS NULL AND j.status = 'submitted' ORDER BY c.rowid, j.rowid",
            collections,
        )
        for (_, collection, candidate_id, body), group in groupby(rows, key=lambda row: row[:4]):
            candidate = _with_id(Candidate.model_validate_json(body), candidate_id)
            for *_, judgement_id, judgement in group:
                yield collection, candidate, _with_id(Judgement.model_validate_json(judgement), judgement_id)

    def candidate(self, collection: str, candidate_id: str) -> Candidate:
        """One candidate that is known to be there."""
        (body,) = self._connection.execute(
            "SELECT body FROM candidates WHERE collection = ? AND id = ?", (collection, candidate_id)
        ).fetchone()
        return Candidate.model_validate_json(body)

    def demonstrations(self, collections: Sequence[str]) -> Iterator[Demonstration]:
        """Standing demonstrations of the named collections, in the order in which they came."""
        rows = self._rows(
            "SELECT body FROM demonstrations WHERE withdrawn_at IS NULL AND collection IN ({}) ORDER BY rowid",
            collections,
        )
        return (Demonstration.model_validate_json(body) for (body,) in rows)

    def completed_since(self, collection: str, position: int, overlap: int) -> tuple[int, int]:
        """How many candidates have the judgements of enough people, of whom one or more came after a position.

        Args:
            position: what an earlier call returned; 0 is before everything.
            overlap: how many people are enough; what an AI said is not counted.

        Returns:
            The number of candidates, and the position now.
        """
        rows = self._connection.execute(
            "SELECT max(rowid) FROM judgements WHERE withdrawn_at IS NULL AND status = 'submitted' "
            "AND rater_kind != 'ai' AND collection = ? GROUP BY candidate_id "
            "HAVING count(DISTINCT rater_name) >= ? AND max(rowid) > ?",
            (collection, overlap, position),
        ).fetchall()
        return len(rows), max((latest for (latest,) in rows), default=position)

    def find_judgement(self, prefix: str) -> StoredJudgement | None:
        """The judgement whose id begins with `prefix`, withdrawn or not.

        Raises:
            UserError: several do.
        """
        rows = self._connection.execute(
            "SELECT collection, body, withdrawn_at FROM judgements WHERE substr(id, 1, ?) = ? LIMIT 2",
            (len(prefix), prefix),
        ).fetchall()
        if len(rows) > 1:
            raise UserError(f"judgement {prefix!r}: several ids begin with it; give more of its characters")
        return StoredJudgement(rows[0][0], Judgement.model_validate_json(rows[0][1]), rows[0][2]) if rows else None

    def pushed(self, destination: str) -> set[str]:
        """Ids of the candidates that were sent to a destination, e.g. a dataset of one Argilla server."""
        rows = self._connection.execute("SELECT candidate_id FROM pushed WHERE destination = ?", (destination,))
        return {candidate_id for (candidate_id,) in rows}

    def mark_pushed(self, destination: str, candidate_ids: Iterable[str]) -> None:
        """Note that candidates are at a destination."""
        with self._transaction() as db:
            now = datetime.now(UTC).isoformat()
            db.executemany(
                "INSERT OR IGNORE INTO pushed VALUES (?, ?, ?)", [(destination, id_, now) for id_ in candidate_ids]
            )

    def _rows(self, query: str, values: Sequence[str]) -> sqlite3.Cursor:
        return self._connection.execute(query.format(", ".join("?" * len(values))), tuple(values))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _with_id(record: Kept, stored: str) -> Kept:
    """The record with the hash that is known already, where the property would work it out again."""
    record.__dict__["id"] = stored
    return record
