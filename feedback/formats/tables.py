"""Tables (CSV, Parquet): the fields of TRL's rows, in columns of any name."""

from collections.abc import Mapping
from typing import Any

from feedback.errors import UserError

FIELDS = ("prompt", "chosen", "rejected", "completion", "context", "probability", "rater", "rater_kind")


def renamed(row: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row by our field names; the columns that no field is taken from are kept together, under `columns`."""
    others = {column: value for column, value in row.items() if column not in columns.values()}
    return {"columns": others} | {name: row.get(column) for name, column in columns.items()}


def require_columns(source: str, available: list[str], columns: Mapping[str, str]) -> None:
    """Check a table's columns before a row of it is used.

    Raises:
        UserError: a mapped column isn't there, or the fields make neither pairs nor demonstrations.
    """
    names = ", ".join(map(repr, available))
    if missing := [column for column in columns.values() if column not in available]:
        raise UserError(f"{source}: no column {', '.join(map(repr, missing))}; there are {names}")
    fields = set(columns or available)
    if not ({"chosen", "rejected"} <= fields or {"prompt", "completion"} <= fields):
        raise UserError(
            f"{source}: no columns prompt, chosen and rejected, or prompt and completion; there are {names}: "
            "map each field to its column"
        )
