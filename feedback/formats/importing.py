"""`feedback import`: the good rows of a file into a collection, the bad ones into a rejects file."""

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from feedback.database import Database
from feedback.errors import UserError
from feedback.files import content_hash, hash_file
from feedback.formats import demonstrations, pairwise, preference
from feedback.formats.fields import Origin, Records, Refused
from feedback.formats.rows import LINE_LIMIT, Row, read_rows
from feedback.formats.tables import FIELDS, renamed, require_columns
from feedback.versions import NAME
from feedback.workspace import Workspace

IMPORTS: dict[str, Callable[[dict[str, Any], Origin], Records]] = {
    "trl": preference.trl,
    "hh-rlhf": preference.hh_rlhf,
    "ultrafeedback": pairwise.ultrafeedback,
    "pandalm": pairwise.pandalm,
    "llmbar": pairwise.llmbar,
    "alpaca": demonstrations.alpaca,
    "sharegpt": demonstrations.sharegpt,
    "openai": preference.openai,
    "csv": preference.trl,
    "parquet": preference.trl,
}
TABLES = ("csv", "parquet")
KINDS = ("candidates", "judgements", "demonstrations")
BATCH_ROWS = 1000
REJECTED_TEXT = 2000
REASONS_SHOWN = 3


@dataclass(frozen=True)
class ImportResult:
    """What an import did.

    Args:
        added, known: records by kind; a record is known when the collection, or an earlier row, had it already.
        rejects: the file of the refused rows, None if there are none.
    """

    rows: int
    refused: int
    added: dict[str, int]
    known: dict[str, int]
    rejects: Path | None


def import_file(
    workspace: Workspace,
    format: str,  # noqa: A002 - the word of the command line
    path: str | Path,
    into: str = "main",
    columns: Mapping[str, str] | None = None,
    rater: str | None = None,
) -> ImportResult:
    """Bring a file, or a data set of the hub (`hub:OWNER/NAME[:SPLIT]`), into a collection.

    Rows go in by batches: should the file prove unreadable half-way, a part of what stands before that place is in
    already, and importing the repaired file adds the rest.

    Args:
        format: how rows are understood, one of `IMPORTS`; the container is known by the file's suffix.
        columns: for csv and parquet, the column of each field, e.g. {"prompt": "question", "completion": "answer"}.
        rater: name of the rater of rows that name none; without it, the format's name.

    Raises:
        UserError: an argument is wrong, the file can't be read, or none of its rows can be used.
    """
    source, columns = str(path), columns or {}
    _check_arguments(format, into, columns, rater)
    rows = read_rows(source)
    origin = Origin(format, "ai" if format == "ultrafeedback" else "human", rater or format, datetime.now(UTC))
    total, added, known = 0, Counter(dict.fromkeys(KINDS, 0)), Counter(dict.fromkeys(KINDS, 0))
    said: dict[bytes, tuple[bytes, str]] = {}
    columns_checked = format not in TABLES
    with _Rejects(_rejects_path(workspace, source)) as rejects, Database(workspace.database) as database:
        for batch in _batches(rows):
            records = Records()
            for row in batch:
                total += 1
                try:
                    if row.value is None:
                        raise Refused(row.reason)
                    if not columns_checked:
                        require_columns(source, list(row.value), columns)
                        columns_checked = True
                    found = IMPORTS[format](renamed(row.value, columns) if columns else row.value, origin)
                    _refuse_contradictions(found, row, said)
                    records.extend(found)
                except (Refused, ValidationError) as refusal:
                    rejects.add(row, reason_of(refusal))
            counts = database.add(into, records.candidates, records.judgements, records.demonstrations)
            for kind in KINDS:
                added[kind] += getattr(counts, kind)
                known[kind] += len(getattr(records, kind)) - getattr(counts, kind)
    if not total:
        raise UserError(f"{source}: no rows in it")
    if rejects.count == total:
        raise UserError(
            f"{source}: none of its rows can be used as {format} ({'; '.join(rejects.first)}"
            f"{'; ...' if total > len(rejects.first) else ''}); all {total} are in {rejects.path}"
        )
    return ImportResult(total, rejects.count, dict(added), dict(known), rejects.path if rejects.count else None)


def _check_arguments(form: str, into: str, columns: Mapping[str, str], rater: str | None) -> None:
    mistakes = []
    if form not in IMPORTS:
        mistakes.append(f"format {form!r}: there are {', '.join(IMPORTS)}")
    if not NAME.fullmatch(into):
        mistakes.append(f"collection name {into!r}: use letters, digits, '.', '_' and '-', at most 64")
    if columns and form in IMPORTS and form not in TABLES:
        mistakes.append(f"columns: {form} rows have names of their own; a column map is for {' and '.join(TABLES)}")
    if unknown := [name for name in columns if name not in FIELDS]:
        mistakes.append(f"columns: no field {', '.join(map(repr, unknown))}; there are {', '.join(FIELDS)}")
    if rater and form == "pandalm":
        mistakes.append(f"rater {rater!r}: pandalm rows name their raters (annotator1, annotator2, ...); leave it out")
    if mistakes:
        raise UserError(*mistakes)


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.text)
        if len(batch) == BATCH_ROWS or size > LINE_LIMIT:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _refuse_contradictions(records: Records, row: Row, said: dict[bytes, tuple[bytes, str]]) -> None:
    """Refuse a row in which a rater takes back what an earlier row of the file says of the same answers.

    In the database the later judgement would silently withdraw the earlier one, and do so again at every import.
    """
    new = {}
    for judgement in records.judgements:
        key = bytes.fromhex(content_hash([judgement.candidate_id, judgement.rater.model_dump()]))
        verdict = bytes.fromhex(judgement.verdict)
        earlier, place = said.get(key, (verdict, ""))
        if earlier != verdict:
            raise Refused(f"{judgement.rater.name} judges the same answers otherwise in {place}")
        new[key] = (verdict, place or f"{row.unit} {row.number}")
    said |= new


def reason_of(refusal: Exception) -> str:
    """Why a row was refused, in one short line."""
    if not isinstance(refusal, ValidationError):
        return str(refusal)
    faults = ((".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in refusal.errors())
    return "; ".join(f"{place}: {fault}" if place else fault for place, fault in faults)


def _rejects_path(workspace: Workspace, source: str) -> Path:
    path = Path(source)
    content = hash_file(path) if path.is_file() else content_hash(source)
    # A name from elsewhere: nothing of it may lead out of the folder, hide the file or be too long for it.
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.name if path.is_file() else source).lstrip(".")[:100]
    return workspace.root / "rejects" / f"{name}-{content[:12]}.jsonl"


class _Rejects:
    """The rejects file: it is made by its first row, and stands there when the import ends without an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.first: list[str] = []
        self._file: IO[str] | None = None

    def __enter__(self) -> "_Rejects":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            os.replace(self._file.name, self.path)
        else:
            Path(self._file.name).unlink()

    def add(self, row: Row, reason: str) -> None:
        if self._file is None:
            self.path.parent.mkdir(exist_ok=True)
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by __exit__
                "w", dir=self.path.parent, prefix=".", suffix=".part", delete=False, encoding="utf-8"
            )
        self.count += 1
        if len(self.first) < REASONS_SHOWN:
            self.first.append(f"{row.unit} {row.number}: {reason}")
        entry = {"line": row.number, "reason": reason, "text": row.text[:REJECTED_TEXT]}
        self._file.write(json.dumps(entry) + "\n")
