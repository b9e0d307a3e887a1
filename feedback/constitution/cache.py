"""Answers on disk, by what was asked of which model: an interrupted job goes on where it was and asks nothing twice."""

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from feedback.constitution.generators import Answer, Request
from feedback.errors import UserError
from feedback.files import content_hash

FILE = "answers.sqlite"


def request_key(model: str, request: Request) -> str:
    """Equal for equal requests of one model.

    Args:
        model: names the model with everything that its answers depend on: its address, or a hash of its weights.
    """
    fields = vars(request) | {"messages": [[m.role, m.content] for m in request.messages]}
    return content_hash({"model": model, **fields})


class AnswerCache:
    """Answers that any job of the workspace got; safe to delete, and it holds no prompt and no key of an endpoint.

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

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, key: str) -> Answer | None:
        """The answer that was given to this request."""
        row = self._connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        texts, options, tokens = json.loads(row[0])
        return Answer(tuple(texts), None if options is None else tuple(options), tokens, cached=True)

    def put(self, answers: Iterable[tuple[str, Answer]]) -> None:
        """Keep answers by their requests' keys, all or none; one that could not be had is not for keeping."""
        rows = [
            (key, json.dumps([answer.texts, answer.options, answer.tokens], ensure_ascii=False))
            for key, answer in answers
            if answer.error is None
        ]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
        self._connection.execute("COMMIT")
