"""The full-text index of all records. Triggers note, in the transaction of each change, what it has to look at again.

Whoever searches brings it up to date first, so that it can't disagree with the records, also after a crash. The
triggers don't write to it themselves: FTS5 would store each row in a segment of its own, which takes six times as long.

A row stands for a record, and a column for a field: the words of a query may stand in different fields, as in
Elasticsearch. Index and records have the same rowids, which each start checks: copying a table may change them.
"""

import functools
import json
import logging
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncSession

# A dataset's fields beyond these share the last column: they are found, but not told apart.
COLUMNS = [f"f{i}" for i in range(16)]

# Scripts that put no spaces between words (Thai to Tibetan, Myanmar, Khmer, kana, Han): each letter is a word here,
# and a term is looked up as a phrase, so that any part of a sentence is found.
_UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)

_FILL = f"""
    INSERT INTO veritune_text (rowid, record_id, {", ".join(COLUMNS)})
    SELECT r.rowid, r.id, {", ".join(f"veritune_text_of(r.fields, f.names, {i})" for i in range(len(COLUMNS)))}
    FROM records r LEFT JOIN (
        SELECT dataset_id, json_group_array(name) AS names
        FROM (SELECT dataset_id, name FROM fields WHERE json_extract(settings, '$.type') <> 'image'
              ORDER BY inserted_at, id)
        GROUP BY dataset_id
    ) f ON f.dataset_id = r.dataset_id"""
_CATCH_UP = (
    "DELETE FROM veritune_text WHERE rowid IN (SELECT id FROM veritune_text_stale)",
    f"{_FILL} WHERE r.rowid IN (SELECT id FROM veritune_text_stale)",
    "DELETE FROM veritune_text_stale",
)
_BEHIND = "SELECT EXISTS (SELECT 1 FROM veritune_text_stale)"


def _trigger(change: str, row: str) -> str:
    return (
        f"CREATE TRIGGER veritune_text_{change.split()[0].lower()} AFTER {change} ON records BEGIN "
        f"INSERT OR IGNORE INTO veritune_text_stale VALUES ({row}.rowid); END"
    )


_SCHEMA = {
    "veritune_text": f"""
        CREATE VIRTUAL TABLE veritune_text USING fts5(
            record_id UNINDEXED, {", ".join(COLUMNS)}, tokenize="unicode61 remove_diacritics 2", columnsize=0)""",
    "veritune_text_stale": "CREATE TABLE veritune_text_stale (id INTEGER PRIMARY KEY)",
    "veritune_text_insert": _trigger("INSERT", "new"),
    "veritune_text_update": _trigger("UPDATE OF fields", "new"),
    "veritune_text_delete": _trigger("DELETE", "old"),
    # In the order of a rater's queue and in that of arrival. With the metadata in it, a filter or order by them has not
    # to read the records themselves, which takes six times as long.
    "veritune_queue": "CREATE INDEX veritune_queue ON records (dataset_id, status, id, metadata)",
    "veritune_arrival": "CREATE INDEX veritune_arrival ON records (dataset_id, inserted_at, id)",
}
_DIFFERENCES = """
    SELECT EXISTS (SELECT rowid, id FROM records EXCEPT SELECT rowid, record_id FROM veritune_text)
        OR EXISTS (SELECT rowid, record_id FROM veritune_text EXCEPT SELECT rowid, id FROM records)
"""
# Argilla sets it in a second transaction after the answer's own, and in a job after the overlap was changed.
_STATUSES = """
    UPDATE records SET status = wanted.status
    FROM (
        SELECT r.id, CASE WHEN (SELECT count(*) FROM responses p WHERE p.record_id = r.id AND p.status = 'submitted')
            >= json_extract(d.distribution, '$.min_submitted') THEN 'completed' ELSE 'pending' END AS status
        FROM records r JOIN datasets d ON d.id = r.dataset_id
    ) AS wanted
    WHERE wanted.id = records.id AND wanted.status <> records.status
"""


def searchable(text: str) -> str:
    """The text as it is indexed and looked up: one form for equal characters, spaces where a script has none."""
    return text if text.isascii() else _UNSPACED.sub(r" \g<0> ", unicodedata.normalize("NFKC", text))


def heal(engine: Engine) -> None:
    """Bring the index, its triggers and the records' status to what Argilla's tables say: after the migrations.

    Args:
        engine: Argilla's own synchronous engine.
    """
    # Connections from before this module was imported don't know the function that the index is filled with.
    engine.dispose()
    with engine.connect() as db:
        db.exec_driver_sql("BEGIN IMMEDIATE")
        # A trigger that was missing has missed changes, which no count shows; other definitions are an older version's.
        found = dict(tuple(row) for row in db.exec_driver_sql("SELECT name, sql FROM sqlite_master"))
        whole = all(found.get(name) == sql.strip() for name, sql in _SCHEMA.items())
        if whole:
            _run(db, _CATCH_UP)
        if not whole or db.exec_driver_sql(_DIFFERENCES).scalar():
            logging.getLogger(__name__).warning("making the text index anew")
            _rebuild(db)
        db.exec_driver_sql(_STATUSES)
        db.commit()


async def catch_up(db: AsyncSession) -> None:
    """Bring the index up to date with the records."""
    if await db.scalar(sa.text(_BEHIND)):
        connection = await db.connection()
        for statement in _CATCH_UP:
            await connection.exec_driver_sql(statement)
        await db.commit()


def _rebuild(db: Connection) -> None:
    for name, sql in reversed(_SCHEMA.items()):
        kind = sql.split()[1].replace("VIRTUAL", "TABLE")
        db.exec_driver_sql(f"DROP {kind} IF EXISTS {name}")
    _run(db, [*map(str.strip, _SCHEMA.values()), _FILL])


def _run(db: Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        db.exec_driver_sql(statement)


@event.listens_for(Engine, "connect")
def _teach(connection: Any, _: object) -> None:
    connection.create_function("veritune_text_of", 3, _text_of, deterministic=True)


def _text_of(fields: str, names: str | None, column: int) -> str | None:
    texts = _texts(fields, names or "[]")
    return texts[column] if column < len(texts) else None


# A record's columns are asked for one after the other.
@functools.lru_cache(maxsize=4)
def _texts(fields: str, names: str) -> list[str]:
    values = json.loads(fields)
    texts = [searchable(_plain(values.get(name))) for name in json.loads(names)]
    shared = len(COLUMNS) - 1
    return texts if len(texts) <= shared else [*texts[:shared], "\n".join(texts[shared:])]


def _plain(value: Any) -> str:
    """A text as it is, the messages of a chat, and the values of a custom field."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "\n".join(map(_plain, value.values()))
    if isinstance(value, list):
        return "\n".join(_plain(message.get("content") if isinstance(message, dict) else message) for message in value)
    return "" if value is None else str(value)
