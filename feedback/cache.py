"""Answers on disk, by what was asked of which model: interrupted work goes on where it was and asks nothing twice."""

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from feedback.errors import UserError

FILE = "answers.sqlite"


class Cache:
    """JSON values by keys; safe to delete, and it holds no prompt and no key of an endpoint.

    Args:
        folder: the workspace's cache.

    Raises:
        UserError: the file in it is no database.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        try:
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            # What a killed process wrote stays; the last answers before a power cut may be asked again.
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
            )
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path}: can't be read as a cache of answers ({error}); delete it") from None

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def find(self, key: str) -> Any:
        """The value that is kept under a key, or None."""
        row = self._connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def keep(self, values: Iterable[tuple[str, Any]]) -> None:
        """Keep values by their keys, all or none."""
        rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in values]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
        self._connection.execute("COMMIT")
