"""How feedback.sqlite's tables came to be what they are."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from feedback.errors import UserError

# Ordered and named; a name that has run is never edited, a change is a new entry.
MIGRATIONS = [
    (
        "0001_candidates_judgements_demonstrations",
        """
        CREATE TABLE candidates (
            collection TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, added_at TEXT NOT NULL,
            PRIMARY KEY (collection, id));
        CREATE TABLE judgements (
            collection TEXT NOT NULL, id TEXT NOT NULL, candidate_id TEXT NOT NULL, rater_kind TEXT NOT NULL,
            rater_name TEXT NOT NULL, source TEXT NOT NULL, principle TEXT NOT NULL, verdict TEXT NOT NULL,
            body TEXT NOT NULL, added_at TEXT NOT NULL, withdrawn_at TEXT,
            PRIMARY KEY (collection, id),
            FOREIGN KEY (collection, candidate_id) REFERENCES candidates (collection, id));
        CREATE UNIQUE INDEX standing_judgement
            ON judgements (collection, candidate_id, rater_kind, rater_name, source, principle)
            WHERE withdrawn_at IS NULL;
        CREATE TABLE demonstrations (
            collection TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, added_at TEXT NOT NULL,
            withdrawn_at TEXT, PRIMARY KEY (collection, id));
        """,
    ),
    (
        "0002_status_of_judgements_and_what_was_pushed",
        """
        ALTER TABLE judgements ADD COLUMN status TEXT NOT NULL DEFAULT 'submitted';
        CREATE TABLE pushed (
            destination TEXT NOT NULL, candidate_id TEXT NOT NULL, pushed_at TEXT NOT NULL,
            PRIMARY KEY (destination, candidate_id));
        """,
    ),
    (
        "0003_where_a_source_keeps_its_judgements",
        """
        ALTER TABLE judgements ADD COLUMN origin TEXT NOT NULL DEFAULT '';
        CREATE TABLE followed (
            collection TEXT NOT NULL, source TEXT NOT NULL, origin TEXT NOT NULL, state TEXT NOT NULL,
            PRIMARY KEY (collection, source, origin));
        """,
    ),
]


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring a database to the newest schema, within the caller's transaction.

    Raises:
        UserError: a newer veritune has been at it.
    """
    db.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at TEXT NOT NULL)")
    applied = {name for (name,) in db.execute("SELECT name FROM migrations")}
    unknown = applied - {name for name, _ in MIGRATIONS}
    if unknown:
        raise UserError(f"{path}: written by a newer veritune ({sorted(unknown)[0]}); upgrade this one")
    for name, script in MIGRATIONS:
        if name not in applied:
            for statement in script.split(";\n"):
                db.execute(statement)
            db.execute("INSERT INTO migrations VALUES (?, ?)", (name, datetime.now(UTC).isoformat()))
