"""Critiques and revisions on disk: every step of every answer, readable without us."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from pydantic import Field, ValidationError

from feedback.errors import UserError
from feedback.files import content_hash
from feedback.schema import Record
from feedback.workspace import Workspace


class Step(Record):
    """One round."""

    principle: str
    critique: str
    revision: str


class Revision(Record):
    """An answer's way from the first version to the last: one line of revisions/COLLECTION.jsonl."""

    candidate_id: str
    model: str
    constitution: str
    seed: int
    max_tokens: int
    response: str
    steps: tuple[Step, ...] = Field(min_length=1)

    @cached_property
    def id(self) -> str:
        return content_hash(self.model_dump(mode="json"))

    @property
    def settings(self) -> tuple[object, ...]:
        """What makes it the same job on the same answer."""
        return self.candidate_id, self.model, self.constitution, self.seed, self.max_tokens, len(self.steps)


class Steps:
    """revisions/COLLECTION.jsonl: lines are added and never changed.

    Raises:
        UserError: a line holds no revision.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        self.path = path
        self.known: dict[tuple[object, ...], Revision] = {}
        self._file = path.open("ab+")
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                # A killed process left a part of a line.
                self._file.truncate(end)
                break
            end += len(line)
            try:
                revision = Revision.model_validate_json(line)
            except ValidationError:
                self._file.close()
                raise UserError(f"{path}, line {number}: no revision; remove the line, and it is made again") from None
            self.known[revision.settings] = revision

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, revisions: Sequence[Revision]) -> None:
        """Keep revisions; they are on disk when this returns."""
        self._file.writelines(revision.model_dump_json().encode() + b"\n" for revision in revisions)
        self._file.flush()
        os.fsync(self._file.fileno())


def steps_path(workspace: Workspace, collection: str) -> Path:
    """Where a collection's critiques and revisions are kept."""
    return workspace.root / "revisions" / f"{collection}.jsonl"
