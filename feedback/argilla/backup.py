"""A backup of the labelling projects as one file, and back into Argilla.

Argilla's own export turns submitted answers into drafts. This one keeps each response with its rater, status and times.
"""

import gzip
import io
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feedback.argilla.backup_file import (
    VERSION,
    AnyLine,
    End,
    Head,
    Marker,
    ProjectLine,
    RaterLine,
    RecordLine,
    ResponseLine,
    parts,
    read,
)
from feedback.argilla.connection import Connection, connect
from feedback.argilla.progress import Progress
from feedback.argilla.project import MARKER, Plan, Project, find_projects, make_project, marked_datasets
from feedback.argilla.raters import join_workspace, make_user, members
from feedback.argilla.records import batches, listed, send
from feedback.database import Database
from feedback.errors import UserError
from feedback.files import write_atomic
from feedback.workspace import Workspace


@dataclass
class BackedUp:
    """What a backup holds."""

    path: Path
    projects: int = 0
    records: int = 0
    responses: int = 0


@dataclass
class Restored:
    """What a restore added.

    Args:
        raters: accounts that were made; `raters add NAME --new-password` gives each a password.
        refused: why Argilla did not take a record, by its id.
    """

    projects: int = 0
    records: int = 0
    responses: int = 0
    raters: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def backup(workspace: Workspace, path: Path | None, say: Callable[[str], None]) -> BackedUp:
    """Write all projects, records, responses and raters to a file, whole or not at all.

    Args:
        path: default: backups/labels-TIME.jsonl.gz in the workspace.

    Raises:
        UserError: no Argilla, or the file can't be written.
    """
    now = datetime.now(UTC)
    path = path or workspace.root / "backups" / f"labels-{now:%Y%m%d-%H%M%S}.jsonl.gz"
    result = BackedUp(path)
    packed = io.BytesIO()
    with (
        connect(workspace, say) as argilla,
        Database(workspace.database) as database,
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6) as file,
    ):
        for line in _lines(argilla, database, now, result, say):
            file.write(line.model_dump_json().encode() + b"\n")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, packed.getvalue())
    except OSError as error:
        raise UserError(f"{path}: the backup can't be written ({error.strerror})") from None
    return result


def restore(workspace: Workspace, path: Path, say: Callable[[str], None]) -> Restored:
    """Bring a backup into Argilla. What is there stays as it is: only missing raters, records and responses are added.

    Argilla dates what it is given at the time of the restore; the first dates stay in the file and in the database.

    Raises:
        UserError: the file is damaged or no backup, or no Argilla.
    """
    # All of the file is read before anything of it is sent.
    total = sum(isinstance(line, RecordLine) for line in read(path))
    result = Restored()
    with connect(workspace, say) as argilla, Database(workspace.database) as database:
        accounts = _Accounts(argilla, result.raters)
        progress = Progress(total, "restore", say)
        for part in parts(read(path)):
            if isinstance(part, RaterLine):
                join_workspace(argilla, accounts.id_of(part.username))
            else:
                _restore_project(argilla, database, *part, accounts, result, progress)
    return result


def _lines(
    argilla: Connection, database: Database, now: datetime, result: BackedUp, say: Callable[[str], None]
) -> Iterator[AnyLine]:
    yield Head(version=VERSION, made_at=now)
    for username in members(argilla):
        yield RaterLine(username=username)
    for dataset in marked_datasets(argilla):
        if dataset["status"] != "ready":
            continue
        result.projects += 1
        place = f"datasets/{dataset['id']}"
        progress = Progress(argilla.call("GET", f"{place}/progress")["total"], dataset["name"], say)
        found = []
        for record in listed(argilla, dataset["id"]):
            found.append(record)
            progress.step(1)
        names = {user["id"]: user["username"] for user in argilla.call("GET", "users")["items"]}
        records = [_record(record, names) for record in found]
        there = {record.external_id for record in records}
        yield ProjectLine(
            name=dataset["name"],
            guidelines=dataset["guidelines"],
            overlap=dataset["distribution"]["min_submitted"],
            marker=Marker(**dataset["metadata"][MARKER]),
            fields=_settings(argilla.call("GET", f"{place}/fields")),
            questions=_settings(argilla.call("GET", f"{place}/questions")),
            properties=[
                (entry["name"], entry["title"], entry["settings"]["type"])
                for entry in argilla.call("GET", f"me/{place}/metadata-properties")["items"]
            ],
            deleted=sorted(database.pushed(dataset["id"]) - there),
        )
        result.records += len(records)
        result.responses += sum(len(record.responses) for record in records)
        yield from records
    yield End(records=result.records, responses=result.responses)


def _record(record: dict[str, Any], names: dict[str, str]) -> RecordLine:
    return RecordLine(
        # A record that somebody else put there may have no id of its own.
        external_id=record["external_id"] or record["id"],
        fields=record["fields"],
        metadata=record["metadata"],
        inserted_at=record["inserted_at"],
        responses=[
            ResponseLine(
                user=names[response["user_id"]],
                **{key: response[key] for key in ("status", "values", "inserted_at", "updated_at")},
            )
            for response in record["responses"]
            if response["user_id"] in names
        ],
    )


def _settings(listed_: dict[str, Any]) -> list[dict[str, Any]]:
    """Fields or questions as they are asked for when a project is made."""
    wanted = ("name", "title", "description", "required", "settings")
    return [{key: entry[key] for key in wanted if entry.get(key) is not None} for entry in listed_["items"]]


class _Accounts:
    """Ids of Argilla's accounts by name; who has none gets one. `made` collects the names of those."""

    def __init__(self, argilla: Connection, made: list[str]) -> None:
        self.argilla, self.made = argilla, made
        self.ids = {user["username"]: user["id"] for user in argilla.call("GET", "users")["items"]}

    def id_of(self, username: str) -> str:
        if username not in self.ids:
            # Whoever was an owner elsewhere is an annotator here: a file gives no rights.
            self.ids[username] = make_user(self.argilla, username, secrets.token_urlsafe(24))["id"]
            self.made.append(username)
        return self.ids[username]


def _restore_project(
    argilla: Connection,
    database: Database,
    saved: ProjectLine,
    records: Iterator[RecordLine],
    accounts: _Accounts,
    result: Restored,
    progress: Progress,
) -> None:
    project = _find_or_make(argilla, saved, result)
    there = {
        record["external_id"] or record["id"]: {response["user_id"] for response in record["responses"]}
        for record in listed(argilla, project.id)
    }
    missing = (_missing(record, there.get(record.external_id), accounts) for record in records)
    for batch in batches(record for record in missing if record):
        refused = send(argilla, project.id, batch)
        taken = [record for record in batch if record["external_id"] not in refused]
        result.refused |= refused
        result.records += sum(record["external_id"] not in there for record in taken)
        result.responses += sum(len(record["responses"]) for record in taken)
        database.mark_pushed(project.id, [record["external_id"] for record in taken])
        progress.step(len(batch))
    database.mark_pushed(project.id, [*there, *saved.deleted])


def _find_or_make(argilla: Connection, saved: ProjectLine, result: Restored) -> Project:
    for project in find_projects(argilla, saved.marker.collection):
        if project.responses == saved.marker.responses:
            return project
    result.projects += 1
    return make_project(
        argilla,
        Plan(
            name=saved.name,
            guidelines=saved.guidelines,
            overlap=saved.overlap,
            marker=saved.marker.model_dump(),
            fields=saved.fields,
            questions=saved.questions,
            properties=saved.properties,
        ),
    )


def _missing(record: RecordLine, answered_by: set[str] | None, accounts: _Accounts) -> dict[str, Any]:
    """What of a record is not in Argilla yet; nothing where all of it is."""
    responses = [
        {"user_id": accounts.id_of(response.user), "status": response.status, "values": response.values}
        for response in record.responses
        if accounts.id_of(response.user) not in (answered_by or ())
    ]
    added: dict[str, Any] = {"external_id": record.external_id, "responses": responses}
    if answered_by is None:
        return added | {"fields": record.fields, "metadata": record.metadata}
    return added if responses else {}
