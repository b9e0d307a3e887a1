"""Rows of a file or a hub data set, one at a time, each with its line number."""

import csv
import gzip
import json
import re
import zlib
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any, cast

from feedback.errors import UserError

LINE_LIMIT = 16 * 2**20
# An array is parsed in one piece; JSON Lines have no such limit.
ARRAY_LIMIT = 2**30
DEPTH_LIMIT = 20
HUB = re.compile(r"hub:(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(:(?P<split>\w[\w.-]*))?")


@dataclass(frozen=True)
class Row:
    """One row: its value, or the reason why it has none.

    Args:
        number: of the first line, or of the row where the container has no lines; from 1.
        text: how the row stands in the file.
        unit: what `number` counts, "line" or "row".
    """

    number: int
    text: str
    value: dict[str, Any] | None = None
    reason: str = ""
    unit: str = "line"


def read_rows(source: str) -> Iterator[Row]:
    """Rows of a .jsonl, .json, .csv (each also with .gz) or .parquet file, or of `hub:OWNER/NAME[:SPLIT]`.

    Raises:
        UserError: there is no such file, its suffix is none of these, or it can't be read to its end.
    """
    if source.startswith("hub:"):
        return _hub(source)
    path = Path(source)
    if path.is_dir():
        raise UserError(f"{source}: a folder; name one file in it")
    if not path.is_file():
        raise UserError(f"{source}: no such file")
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet(path)
    reader = _TEXT_READERS.get(Path(name.removesuffix(".gz")).suffix)
    if reader is None:
        raise UserError(
            f"{source}: the suffix is none of {', '.join(_TEXT_READERS)} (each also with .gz), .parquet; "
            "rename the file to what it holds"
        )
    return _text(path, reader)


def _text(path: Path, reader: Callable[[str, TextIOWrapper], Iterator[Row]]) -> Iterator[Row]:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as binary:
            binary = cast(BufferedReader, binary)
            # The signatures of the common binary kinds stand in the first 16 bytes.
            head = binary.peek(16)[:16]
            try:
                getincrementaldecoder("utf-8")().decode(head)
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
            if b"\0" in head:
                raise UserError(f"{path}: not text (byte {head.index(0)} is NUL)")
            # Bytes that are no UTF-8 become lone surrogates, which `_row` refuses with their row.
            text = TextIOWrapper(binary, "utf-8-sig", errors="surrogateescape", newline="")
            yield from reader(str(path), text)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: can't be read ({error})") from None


def _lines(source: str, file: TextIOWrapper) -> Iterator[str]:
    number = 0
    while line := file.readline(LINE_LIMIT + 1):
        number += 1
        if len(line) > LINE_LIMIT:
            raise UserError(f"{source}: line {number} is longer than {LINE_LIMIT:,} characters; split or remove it")
        yield line


def _json_lines(source: str, file: TextIOWrapper) -> Iterator[Row]:
    for number, line in enumerate(_lines(source, file), 1):
        if not line.strip():
            continue
        try:
            yield _row(number, json.loads(line), line)
        except (ValueError, RecursionError) as error:
            yield Row(number, line, reason=_json_fault(error))


def _json_array(source: str, file: TextIOWrapper) -> Iterator[Row]:
    text = file.read(ARRAY_LIMIT + 1)
    if len(text) > ARRAY_LIMIT:
        raise UserError(f"{source}: longer than {ARRAY_LIMIT:,} characters; write it as JSON Lines (.jsonl)")
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: {_json_fault(error)}; if it holds one object a line, name it .jsonl") from None
    if not isinstance(items, list):
        raise UserError(f"{source}: not a JSON array of objects")
    for number, item in enumerate(items, 1):
        yield _row(number, item, unit="row")


def _csv(source: str, file: TextIOWrapper) -> Iterator[Row]:
    csv.field_size_limit(LINE_LIMIT)
    # Strict, or an unclosed quote would swallow the rows that follow without a word.
    reader = csv.reader(_lines(source, file), strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(number, "", reason=f"not CSV ({error})")
            continue
        if not fields:
            continue
        if not header:
            header = fields
            _require_distinct(source, header)
        elif len(fields) != len(header):
            text = json.dumps(fields)
            yield Row(number, text, reason=f"{len(fields)} fields, where the header names {len(header)}")
        else:
            yield _row(number, dict(zip(header, fields, strict=True)))


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _require_distinct(str(path), file.schema_arrow.names)
            batches = file.iter_batches(batch_size=100)
            yield from _values(value for batch in batches for value in batch.to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: can't be read as Parquet ({_first_line(error)})") from None


def _hub(source: str) -> Iterator[Row]:
    from datasets import load_dataset

    if not (parts := HUB.fullmatch(source)):
        raise UserError(f"{source}: write a hub data set as hub:OWNER/NAME or hub:OWNER/NAME:SPLIT")
    try:
        yield from _values(load_dataset(parts["name"], split=parts["split"] or "train", streaming=True))
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: can't be loaded ({_first_line(error)})") from None


def _values(values: Iterable[Any]) -> Iterator[Row]:
    return (_row(number, value, unit="row") for number, value in enumerate(values, 1))


def _row(number: int, value: Any, text: str = "", unit: str = "line") -> Row:
    """A row that can be hashed, stored as UTF-8 and read again, whatever stood in the file."""

    def refused(reason: str) -> Row:
        return Row(number, text, None, reason, unit)

    if not isinstance(value, dict):
        return refused("not an object with named fields")
    level: list[Any] = [value]
    for _ in range(DEPTH_LIMIT):
        children = (child for inner in level for child in (inner.values() if isinstance(inner, dict) else inner))
        level = [child for child in children if isinstance(child, dict | list)]
    if level:
        return refused(f"nested more than {DEPTH_LIMIT} deep")
    try:
        plain = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_as_text)
        plain.encode()
    except UnicodeEncodeError:
        return refused("holds characters that are not valid Unicode")
    except TypeError as error:
        return refused(str(error))
    except ValueError:
        return refused("holds a number that is not finite (NaN or infinite)")
    return Row(number, text or plain, json.loads(plain), "", unit)


def _as_text(value: Any) -> str:
    if isinstance(value, date | time | timedelta | Decimal):
        return str(value)
    raise TypeError(f"holds a value of type {type(value).__name__}, which is neither text nor a number")


def _json_fault(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg})"
    return f"not JSON ({'nested too deep' if isinstance(error, RecursionError) else 'a number of too many digits'})"


def _require_distinct(source: str, columns: list[str]) -> None:
    if repeated := sorted({column for column in columns if columns.count(column) > 1}):
        raise UserError(f"{source}: the column {', '.join(map(repr, repeated))} stands there twice; rename one")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


_TEXT_READERS = {".jsonl": _json_lines, ".json": _json_array, ".csv": _csv}
