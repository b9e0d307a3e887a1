"""`data export`: a dataset version as files that other tools read."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.curation.splits import SPLITS
from feedback.errors import UserError
from feedback.files import atomic_folder
from feedback.formats.fields import Refused
from feedback.formats.preference import transcript
from feedback.versions import DatasetVersion

Line = dict[str, Any]


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    Args:
        files: rows by file name.
        left_out: how many rows or values the format has no place for, by what they are.
    """

    folder: Path
    files: dict[str, int]
    left_out: dict[str, int]


def export_version(version: DatasetVersion, format: str, path: str | Path) -> ExportResult:  # noqa: A002
    """Write a version into a new folder, one file for each kind and split that has rows (e.g. pairs-train.jsonl).

    Ids of judgements and provenance stay in the version. In CSV every cell is quoted and none is changed: a spreadsheet
    may run one that begins with =, +, - or @ as a formula, so let it read the columns as text.

    Args:
        format: one of `EXPORTS`.

    Raises:
        UserError: there is no such format, the folder exists or can't be made, or no row fits the format.
    """
    if format not in EXPORTS:
        raise UserError(f"format {format!r}: there are {', '.join(EXPORTS)} to export to")
    folder = Path(path)
    if folder.exists():
        raise UserError(f"{folder}: exists already; name a folder that does not")
    files: dict[str, int] = {}
    left_out: Counter[str] = Counter()
    try:
        with atomic_folder(folder) as staging:
            for kind in ("pairs", "demonstrations"):
                for split in SPLITS:
                    name = f"{kind}-{split}.{format if format in ('csv', 'parquet') else 'jsonl'}"
                    if rows := list(_held(version, kind, split, format, left_out)):
                        _write(staging / name, rows)
                        files[name] = len(rows)
            if not files:
                reasons = "; ".join(left_out) or "it has no rows"
                raise UserError(f"dataset {version.id}: no row can be exported as {format} ({reasons})")
    except OSError as error:
        raise UserError(f"{folder}: can't be written ({error.strerror or error})") from None
    return ExportResult(folder, files, dict(left_out))


def _held(version: DatasetVersion, kind: str, split: str, form: str, left_out: Counter[str]) -> Iterator[Line]:
    """The rows of a split in the format, with the others counted."""
    convert = EXPORTS[form].get(kind)
    for row in version.pairs(split) if kind == "pairs" else version.demonstrations(split):
        if convert is None:
            left_out[f"{kind}: {form} has no place for them"] += 1
            continue
        try:
            line = convert(row)
        except Refused as refusal:
            left_out[f"{kind}: {refusal}"] += 1
            continue
        if row.get("probability", 1) < 1 and "probability" not in line:
            left_out[f"probabilities below 1: {form} has no place for them"] += 1
        yield line


def _write(path: Path, rows: list[Line]) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, list(rows[0]), quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _answer(text: str) -> list[Line]:
    return [{"role": "assistant", "content": text}]


def _trl_pair(row: Line) -> Line:
    answers = {"chosen": _answer(row["chosen"]), "rejected": _answer(row["rejected"])}
    return {"prompt": row["prompt"], **answers, "probability": row["probability"]}


def _trl_demonstration(row: Line) -> Line:
    return {"prompt": row["prompt"], "completion": _answer(row["completion"])}


def _openai_pair(row: Line) -> Line:
    return {
        "input": {"messages": row["prompt"]},
        "preferred_output": _answer(row["chosen"]),
        "non_preferred_output": _answer(row["rejected"]),
    }


def _openai_demonstration(row: Line) -> Line:
    return {"messages": row["prompt"] + _answer(row["completion"])}


def _hh_rlhf_pair(row: Line) -> Line:
    speakers = {"user": "Human", "assistant": "Assistant"}
    if any(turn["role"] not in speakers for turn in row["prompt"]):
        raise Refused("hh-rlhf has no system turn")
    line = {}
    for name in ("chosen", "rejected"):
        turns = row["prompt"] + _answer(row[name])
        line[name] = "".join(f"\n\n{speakers[turn['role']]}: {turn['content']}" for turn in turns)
        if [turn.model_dump() for turn in transcript(line[name], name)] != turns:
            raise Refused("a text that hh-rlhf would read as another turn")
    return line


def _alpaca_demonstration(row: Line) -> Line:
    return {"instruction": _question(row, "alpaca"), "input": "", "output": row["completion"]}


def _sharegpt_demonstration(row: Line) -> Line:
    speakers = {"system": "system", "user": "human", "assistant": "gpt"}
    turns = row["prompt"] + _answer(row["completion"])
    return {"conversations": [{"from": speakers[turn["role"]], "value": turn["content"]} for turn in turns]}


def _csv_pair(row: Line) -> Line:
    return {"prompt": _question(row, "csv")} | {name: row[name] for name in ("chosen", "rejected", "probability")}


def _csv_demonstration(row: Line) -> Line:
    return {"prompt": _question(row, "csv"), "completion": row["completion"]}


def _question(row: Line, form: str) -> str:
    if len(row["prompt"]) > 1:
        raise Refused(f"{form} holds one question, not a conversation of several turns")
    return row["prompt"][0]["content"]


def _columns(*names: str) -> Callable[[Line], Line]:
    return lambda row: {name: row[name] for name in names}


EXPORTS: Mapping[str, Mapping[str, Callable[[Line], Line]]] = {
    "trl": {"pairs": _trl_pair, "demonstrations": _trl_demonstration},
    "openai": {"pairs": _openai_pair, "demonstrations": _openai_demonstration},
    "hh-rlhf": {"pairs": _hh_rlhf_pair},
    "alpaca": {"demonstrations": _alpaca_demonstration},
    "sharegpt": {"demonstrations": _sharegpt_demonstration},
    "csv": {"pairs": _csv_pair, "demonstrations": _csv_demonstration},
    "parquet": {
        "pairs": _columns("prompt", "chosen", "rejected", "probability"),
        "demonstrations": _columns("prompt", "completion"),
    },
}
