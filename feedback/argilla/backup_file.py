"""The file that a backup is: gzipped JSON, a line for each thing, each of them checked when it is read.

First stands what the backup is, then who may label, then each project followed by its records, and at the end how many
there were. It holds no password and no key.
"""

import gzip
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from feedback.argilla.project import LAYOUT
from feedback.errors import UserError
from feedback.schema import Status

VERSION = 1
# One record of 50 answers of a million characters, as JSON may escape them.
LONGEST_LINE = 300_000_000


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Head(_Line):
    kind: Literal["backup"] = "backup"
    version: int
    made_at: datetime


class RaterLine(_Line):
    kind: Literal["rater"] = "rater"
    username: str = Field(min_length=1, max_length=200)


class Marker(_Line):
    collection: str
    responses: int = Field(ge=1)
    layout: int


class ProjectLine(_Line):
    kind: Literal["project"] = "project"
    name: str
    guidelines: str | None
    overlap: int = Field(ge=1)
    marker: Marker
    fields: list[dict[str, Any]]
    questions: list[dict[str, Any]]
    properties: list[tuple[str, str, str]]
    deleted: list[str] = Field(description="ids of candidates that were sent, and that somebody deleted in Argilla")


class ResponseLine(_Line):
    user: str
    status: Status
    values: dict[str, Any] | None
    inserted_at: datetime
    updated_at: datetime


class RecordLine(_Line):
    kind: Literal["record"] = "record"
    external_id: str
    fields: dict[str, Any]
    metadata: dict[str, Any] | None
    inserted_at: datetime
    responses: list[ResponseLine]


class End(_Line):
    kind: Literal["end"] = "end"
    records: int
    responses: int


AnyLine = Annotated[Head | RaterLine | ProjectLine | RecordLine | End, Field(discriminator="kind")]
_ANY_LINE: TypeAdapter[AnyLine] = TypeAdapter(AnyLine)


def read(path: Path) -> Iterator[AnyLine]:
    """The lines of a backup, each checked.

    Raises:
        UserError: which line is wrong, and why.
    """
    last: AnyLine | None = None
    records = responses = 0
    try:
        with gzip.open(path, "rb") as file:
            for number, text in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
                last = _parse(path, number, text, last)
                if isinstance(last, RecordLine):
                    records += 1
                    responses += len(last.responses)
                yield last
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"{path}: damaged, cut off, or no backup of veritune; nothing was restored from it") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from None
    if not isinstance(last, End) or (last.records, last.responses) != (records, responses):
        raise UserError(f"{path}: cut off after {records} records; nothing was restored from it")


def _parse(path: Path, number: int, text: bytes, before: AnyLine | None) -> AnyLine:
    try:
        line = _ANY_LINE.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the line"
        raise UserError(f"{path}, line {number}: {place}: {first['msg']}; nothing was restored from it") from None
    if isinstance(line, Head) != (number == 1) or (
        isinstance(line, RecordLine) and not isinstance(before, ProjectLine | RecordLine)
    ):
        raise UserError(f"{path}, line {number}: a {line.kind!r} line stands in the wrong place; no backup of veritune")
    if isinstance(before, End):
        raise UserError(f"{path}, line {number}: the backup ended on the line before; no backup of veritune")
    if isinstance(line, Head) and line.version != VERSION:
        raise UserError(
            f"{path}: a backup of version {line.version}; this veritune reads version {VERSION}: upgrade it"
        )
    if isinstance(line, ProjectLine) and line.marker.layout != LAYOUT:
        raise UserError(f"{path}, line {number}: a project of another version of veritune; upgrade this one")
    return line


def parts(lines: Iterator[AnyLine]) -> Iterator[RaterLine | tuple[ProjectLine, Iterator[RecordLine]]]:
    """Raters one by one, and each project with an iterator over its records, which is to be used up first."""
    waiting: AnyLine | None = next(lines, None)

    def records() -> Iterator[RecordLine]:
        nonlocal waiting
        while isinstance(waiting := next(lines, None), RecordLine):
            yield waiting

    while waiting is not None:
        if isinstance(waiting, ProjectLine):
            yield waiting, records()
            continue
        if isinstance(waiting, RaterLine):
            yield waiting
        waiting = next(lines, None)
