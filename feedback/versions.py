"""Dataset versions: written once, named by a hash of their bytes, refused when those bytes have changed."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version as package_version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.curation.card import CARD, PLOTS, write_card
from feedback.curation.splits import SPLITS
from feedback.errors import UserError
from feedback.files import atomic_folder, canonical_json, content_hash, hash_folder
from feedback.schema import Demonstration, PreferencePair
from feedback.workspace import Workspace

if TYPE_CHECKING:
    from datasets import Dataset

MANIFEST = "manifest.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ROWS_A_BATCH = 10_000


@dataclass(frozen=True)
class DatasetVersion:
    """One written version; `manifest` is what manifest.json says."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.manifest['name']}@v{self.manifest['version']}"

    @property
    def fingerprint(self) -> str:
        return self.manifest["fingerprint"]

    @property
    def summary(self) -> dict[str, Any]:
        """What `data show --json` prints; splits and totals count rows."""
        keys = ("name", "version", "fingerprint", "splits", "pairs", "demonstrations", "dropped")
        return {key: self.manifest[key] for key in keys}

    def pairs(self, split: str) -> "Dataset":
        """Preference pairs of a split, memory-mapped."""
        return self._read("pairs", split)

    def demonstrations(self, split: str) -> "Dataset":
        """Demonstrations of a split, memory-mapped."""
        return self._read("demonstrations", split)

    def _read(self, kind: str, split: str) -> "Dataset":
        from datasets import Dataset

        return Dataset.from_file(str(self.folder / kind / f"{split}.arrow"))

    @cached_property
    def judgement_ids(self) -> set[str]:
        """Every judgement that a pair or a demonstration of this version stands on."""
        of_pairs = {i for split in SPLITS for ids in self.pairs(split)["judgements"] for i in ids}
        of_rewrites = {
            provenance.removeprefix("rewrite:")
            for split in SPLITS
            for provenance in self.demonstrations(split)["provenance"]
            if provenance.startswith("rewrite:")
        }
        return of_pairs | of_rewrites

    def verify(self) -> None:
        """Compare the bytes on disk with the manifest.

        Raises:
            UserError: a file is missing, added or altered.
        """
        expected, found = self.manifest["files"], _hash_data(self.folder)
        changed = sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))
        if changed or content_hash(expected) != self.fingerprint:
            raise UserError(
                f"dataset {self.id}: {', '.join(changed) or 'manifest.json'} in {self.folder} no longer matches the "
                f"version's hash; restore the file or build a new version with `veritune data build`"
            )


def write(
    workspace: Workspace,
    name: str,
    pairs: Mapping[str, Iterable[PreferencePair]],
    demonstrations: Mapping[str, Iterable[Demonstration]],
    set_aside: Iterable[Mapping[str, Any]],
    details: Mapping[str, Any],
) -> tuple[DatasetVersion, bool]:
    """Write the next version of a dataset, unless the latest holds exactly this.

    Args:
        pairs, demonstrations: rows by split; they are written as they come, so that any number fits in memory.
        set_aside: rows that were not used, each with its reason.
        details: further entries of the manifest (counts by step, inputs, options).

    Returns:
        The version, and whether it is new.

    Raises:
        UserError: the name can't be a folder's.
    """
    check_name(name)
    earlier = versions_of(workspace, name)
    number = earlier[-1].manifest["version"] + 1 if earlier else 1
    folder = workspace.datasets / name / f"v{number}"
    try:
        with atomic_folder(folder) as staging:
            counts = {
                (kind, split): _write_arrow(staging / kind / f"{split}.arrow", kind, by_split.get(split, ()))
                for kind, by_split in (("pairs", pairs), ("demonstrations", demonstrations))
                for split in SPLITS
            }
            with (staging / "set_aside.jsonl").open("w", encoding="utf-8", newline="") as file:
                file.writelines(canonical_json(row) + "\n" for row in set_aside)
            files = _hash_data(staging)
            fingerprint = content_hash(files)
            if earlier and earlier[-1].fingerprint == fingerprint:
                raise _UnchangedError
            manifest = {
                "name": name,
                "version": number,
                "created_at": datetime.now(UTC).isoformat(),
                "veritune": package_version("veritune"),
                "fingerprint": fingerprint,
                "files": files,
                "splits": {split: counts["pairs", split] + counts["demonstrations", split] for split in SPLITS},
                "pairs": sum(counts["pairs", split] for split in SPLITS),
                "demonstrations": sum(counts["demonstrations", split] for split in SPLITS),
                **details,
            }
            (staging / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
            write_card(staging, manifest)
    except _UnchangedError:
        return earlier[-1], False
    return DatasetVersion(folder, manifest), True


class _UnchangedError(Exception):
    """What was written is what the latest version holds: the new folder is to go."""


def check_name(name: str) -> None:
    """Make sure that a dataset's name can be a folder's.

    Raises:
        UserError: it can't.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"dataset name {name!r}: use letters, digits, '.', '_' and '-', at most 64")


def load(workspace: Workspace, reference: str) -> DatasetVersion:
    """The version that `NAME@vN`, or `NAME` for its latest, refers to; its bytes are checked.

    Raises:
        UserError: there is no such version, or its bytes no longer match its hash.
    """
    name, _, wanted = reference.partition("@v")
    found = versions_of(workspace, name) if NAME.fullmatch(name) else []
    if not found:
        names = sorted({folder.name for folder in workspace.datasets.glob("*") if not folder.name.startswith(".")})
        raise UserError(
            f"dataset {reference!r}: not in this workspace, which has {', '.join(names) or 'none yet'}; "
            "build one with `veritune data build NAME`"
        )
    chosen = [v for v in found if str(v.manifest["version"]) == wanted] if wanted else found[-1:]
    if not chosen:
        raise UserError(f"dataset {reference!r}: no such version; {name} has {', '.join(v.id for v in found)}")
    chosen[0].verify()
    return chosen[0]


def versions_of(workspace: Workspace, name: str) -> list[DatasetVersion]:
    """All versions of a dataset, oldest first."""
    manifests = [
        (path.parent, json.loads(path.read_text())) for path in workspace.datasets.glob(f"{name}/v*/{MANIFEST}")
    ]
    return [DatasetVersion(*pair) for pair in sorted(manifests, key=lambda pair: pair[1]["version"])]


def all_versions(workspace: Workspace) -> list[DatasetVersion]:
    """Every version of every dataset of the workspace."""
    return versions_of(workspace, "*")


def diff(old: DatasetVersion, new: DatasetVersion) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Rows that only one of two versions has, by kind; `added` are the new one's."""
    changes = {}
    for kind in ("pairs", "demonstrations"):
        rows_of = [
            {canonical_json(row): row for split in SPLITS for row in version._read(kind, split)}
            for version in (old, new)
        ]
        before, after = rows_of
        changes[kind] = {
            "added": [row for key, row in after.items() if key not in before],
            "removed": [row for key, row in before.items() if key not in after],
        }
    return changes


def _write_arrow(path: Path, kind: str, rows: Iterable[PreferencePair] | Iterable[Demonstration]) -> int:
    """Write rows in batches; how many there were."""
    import pyarrow as pa

    prompt = pa.field("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))
    text = [pa.field(name, pa.string()) for name in ("chosen", "rejected", "completion", "provenance")]
    fields = {
        "pairs": [
            prompt,
            *text[:2],
            pa.field("probability", pa.float64()),
            pa.field("judgements", pa.list_(pa.string())),
        ],
        "demonstrations": [prompt, *text[2:]],
    }[kind]
    schema = pa.schema(fields)
    path.parent.mkdir(exist_ok=True)
    count = 0
    dumped = (row.model_dump(mode="json") for row in rows)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while batch := list(islice(dumped, ROWS_A_BATCH)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def _hash_data(folder: Path) -> dict[str, str]:
    """The hashes of what a version holds; the manifest, the card and its plots only speak of it."""
    return {
        path: digest
        for path, digest in hash_folder(folder).items()
        if path not in (MANIFEST, CARD) and not path.startswith(f"{PLOTS}/")
    }
