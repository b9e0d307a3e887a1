"""The records of a project, to Argilla in batches and from it in pages."""

from collections.abc import Iterable, Iterator
from typing import Any

from feedback.argilla.connection import Connection, RefusedError

STATUSES = ("submitted", "draft", "discarded")
# Argilla takes 500 records in one request; a request is kept far below what a proxy lets through.
MOST_RECORDS, MOST_CHARACTERS = 500, 4_000_000
PAGE = 500

# Argilla's search filters for records that somebody answered, and for those that not enough people have.
ANSWERED = {"type": "terms", "scope": {"entity": "response", "property": "status"}, "values": list(STATUSES)}
PENDING = {"type": "terms", "scope": {"entity": "record", "property": "status"}, "values": ["pending"]}
_AGE = {"entity": "record", "property": "inserted_at"}


def batches(records: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Records in lists that one request can carry."""
    batch: list[dict[str, Any]] = []
    characters = 0
    for record in records:
        length = sum(len(str(value)) for value in record.get("fields", {}).values())
        if batch and (len(batch) == MOST_RECORDS or characters + length > MOST_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(record)
        characters += length
    if batch:
        yield batch


def send(argilla: Connection, dataset_id: str, records: list[dict[str, Any]]) -> dict[str, str]:
    """Add the records of one batch, or bring them up to date; what Argilla refuses does not hold up the others.

    Returns:
        Why Argilla refused a record, by its external id.
    """
    try:
        argilla.call("PUT", f"datasets/{dataset_id}/records/bulk", {"items": records})
    except RefusedError as refused:
        if refused.status not in (413, 422):
            raise
        if len(records) == 1:
            return {records[0]["external_id"]: refused.reason}
        middle = len(records) // 2
        return send(argilla, dataset_id, records[:middle]) | send(argilla, dataset_id, records[middle:])
    return {}


def listed(argilla: Connection, dataset_id: str, *filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The records of a dataset that pass the filters, oldest first, with all responses to them.

    A page begins at the time at which the last one ended: an offset would skip records when others are deleted
    meanwhile, and Elasticsearch stops at 10,000.
    """
    since: list[dict[str, Any]] = []
    seen: set[str] = set()
    while True:
        query: dict[str, Any] = {"sort": [{"scope": _AGE, "order": "asc"}]}
        if filters or since:
            query["filters"] = {"and": [*filters, *since]}
        path = f"datasets/{dataset_id}/records/search"
        page = [item["record"] for item in argilla.call("POST", path, query, include="responses", limit=PAGE)["items"]]
        fresh = [record for record in page if record["id"] not in seen]
        yield from fresh
        seen.update(record["id"] for record in fresh)
        if len(page) < PAGE or not fresh:
            return
        since = [{"type": "range", "scope": _AGE, "ge": page[-1]["inserted_at"]}]
