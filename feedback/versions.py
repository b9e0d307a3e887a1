"""Dataset versions: written once, named by a hash of their bytes, refused when those bytes have changed."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.curation.splits import SPLITS
from feedback.errors import UserError
from feedback.files import atomic_folder, canonical_json, content_hash, hash_folder
from feedback.schema import Demonstration, PreferencePair
from feedback.workspace import Workspace

if TYPE_CHECKING:
    from datasets import Dataset

MANIFEST = "manifest.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


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
    pairs: Mapping[str, Sequence[PreferencePair]],
    demonstrations: Mapping[str, Sequence[Demonstration]],
    set_aside: Iterable[Mapping[str, Any]],
    details: Mapping[str, Any],
) -> tuple[DatasetVersion, bool]:
    """Write the next version of a dataset, unless the latest holds exactly this.

    Args:
        pairs, demonstrations: rows by split.
        set_aside: rows that were not used, each with its reason.
        details: further entries of the manifest (counts by step, inputs, options).

    Returns:
        The version, and whether it is new.

    Raises:
        UserError: the name can't be a folder's.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"dataset name {name!r}: use letters, digits, '.', '_' and '-', at most 64")
    contents = {"set_aside.jsonl": "".join(canonical_json(row) + "\n" for row in set_aside).encode()}
    for split in SPLITS:
        contents[f"pairs/{split}.arrow"] = _arrow_bytes("pairs", pairs.get(split, ()))
        contents[f"demonstrations/{split}.arrow"] = _arrow_bytes("demonstrations", demonstrations.get(split, ()))
    files = {path: hashlib.sha256(data).hexdigest() for path, data in sorted(contents.items())}
    fingerprint = content_hash(files)
    earlier = versions_of(workspace, name)
    if earlier and earlier[-1].fingerprint == fingerprint:
        return earlier[-1], False
    number = earlier[-1].manifest["version"] + 1 if earlier else 1
    manifest = {
        "name": name,
        "version": number,
        "created_at": datetime.now(UTC).isoformat(),
        "veritune": package_version("veritune"),
        "fingerprint": fingerprint,
        "files": files,
        "splits": {split: len(pairs.get(split, ())) + len(demonstrations.get(split, ())) for split in SPLITS},
        "pairs": sum(map(len, pairs.values())),
        "demonstrations": sum(map(len, demonstrations.values())),
        **details,
    }
    with atomic_folder(workspace.datasets / name / f"v{number}") as staging:
        for path, data in contents.items():
            (staging / path).parent.mkdir(exist_ok=True)
            (staging / path).write_bytes(data)
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        (staging / "CARD.md").write_text(_card(manifest))
    return DatasetVersion(workspace.datasets / name / f"v{number}", manifest), True


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


def _arrow_bytes(kind: str, rows: Sequence[PreferencePair] | Sequence[Demonstration]) -> bytes:
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
    table = pa.Table.from_pylist([row.model_dump(mode="json") for row in rows], schema=pa.schema(fields))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10_000)
    return sink.getvalue().to_pybytes()


def _hash_data(folder: Path) -> dict[str, str]:
    return {path: digest for path, digest in hash_folder(folder).items() if path not in (MANIFEST, "CARD.md")}


def _card(manifest: Mapping[str, Any]) -> str:
    rows = "\n".join(f"| {step} | {count} |" for step, count in manifest["dropped"].items()) or "| nothing | 0 |"
    splits = ", ".join(f"{split} {count}" for split, count in manifest["splits"].items())
    return f"""# {manifest["name"]}, version {manifest["version"]}

{manifest["pairs"]} preference pairs and {manifest["demonstrations"]} demonstrations; rows by split: {splits}.
Fingerprint `{manifest["fingerprint"]}`, written {manifest["created_at"]} by veritune {manifest["veritune"]}.

From the collections {", ".join(manifest["collections"])}, judged by:

| rater | kind | judgements |
|---|---|---|
{chr(10).join(f"| {name} | {kind} | {count} |" for name, kind, count in manifest["raters"]) or "| nobody | | 0 |"}

What was set aside, and why (the rows are in set_aside.jsonl):

| step | rows |
|---|---|
{rows}

Splits are by prompt: a prompt's hash alone decides where it stands, in this version and in later ones.
"""
