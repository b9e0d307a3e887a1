"""What all commands share: the chosen workspace, and how results and progress are printed."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from feedback.workspace import Workspace

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Chosen:
    """What --workspace said."""

    folder: Path | None = None


chosen = Chosen()


def current_workspace() -> "Workspace":
    """The workspace that the command is about."""
    from feedback import workspace

    return workspace.find(chosen.folder)


def say(line: str) -> None:
    """A line for the person at the screen, beside the results on standard output."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """A result on standard output, for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A result on standard output, for people; numbers stand to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    listed = [list(row) for row in rows]
    for index, name in enumerate(columns):
        numeric = bool(listed) and all(_is_number(row[index]) for row in listed)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row in listed:
        table.add_row(*(Text(str(cell)) for cell in row))
    # Not a terminal: nothing is folded, so that a line can be searched for.
    console = Console(width=None if sys.stdout.isatty() else 200)
    if title:
        # Rich's own titles are folded at the width of the table.
        console.print(Text(title, style="bold"))
    console.print(table)


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) or (isinstance(cell, str) and cell[:1] in "+-−0123456789<" and cell != "-")
