"""All that is in the labelling projects to one file, and from there into a second real server."""

import gzip
import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from feedback import workspace as workspaces
from feedback.argilla.backup import BackedUp, Restored, backup, restore
from feedback.argilla.connection import connect
from feedback.argilla.project import find_projects
from feedback.argilla.pull import pull
from feedback.argilla.push import push
from feedback.argilla.raters import list_raters
from feedback.argilla.server import control
from feedback.database import Database
from feedback.errors import UserError
from feedback.schema import Candidate
from feedback.workspace import Workspace
from tests.feedback.argilla.people import Person, beside, candidate, records, sign_in, store
from tests.feedback.argilla.serving import free_port


@pytest.fixture(scope="module")
def second_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    workspace = workspaces.create(tmp_path_factory.mktemp("second") / "workspace")
    control.start(workspace, port=free_port())
    yield workspace
    control.stop(workspace)


@pytest.fixture
def first(workspace: Workspace, labelling_server: Workspace, request: pytest.FixtureRequest) -> Workspace:
    """A workspace at the first server, in a place of this test's own: a backup takes all of a place."""
    return beside(labelling_server, workspace, workspace=request.node.name)


@pytest.fixture
def move(second_server: Workspace, request: pytest.FixtureRequest) -> Callable[[Workspace], Workspace]:
    """The same workspace, at the second server from now on."""
    return lambda workspace: beside(second_server, workspace, workspace=request.node.name)


def quiet(line: str) -> None:
    pass


def labelled(workspace: Workspace) -> tuple[str, list[Candidate], Person, Person]:
    """A collection in which two people have answered in every way, and one record was deleted."""
    asked = [candidate(n, k, topic=f"t{n}") for n in range(4) for k in (1, 2, 3)]
    collection = store(workspace, *asked)
    push(workspace, collection, quiet)
    ann, robot = sign_in(workspace, "ann"), sign_in(workspace, "robot", "script")
    there = records(workspace, collection)
    ranking = [{"value": f"response_{n}", "rank": rank} for n, rank in ((1, 2), (2, 1), (3, 2))]
    ann.answer(there[asked[0].id], truthful=2, rewrite="better", rationale="why")
    ann.answer(there[asked[1].id], preference="A", hallucinated_b=[{"start": 0, "end": 6, "label": "hallucinated"}])
    ann.answer(there[asked[2].id], ranking=ranking)
    ann.answer(there[asked[3].id], "draft", helpful=1)
    ann.answer(there[asked[4].id], "discarded", truthful_a=1)
    ann.answer(there[asked[5].id], "discarded")
    robot.answer(there[asked[1].id], preference="both bad")
    robot.answer(there[asked[4].id], preference="tie")
    with connect(workspace) as argilla:
        argilla.call("DELETE", f"records/{there[asked[11].id]['id']}")
    return collection, asked, ann, robot


def held(workspace: Workspace, collection: str) -> dict[str, Any]:
    """What Argilla holds, without its own ids and dates."""
    with connect(workspace) as argilla:
        names = {user["id"]: user["username"] for user in argilla.call("GET", "users")["items"]}
        projects = [
            (p.name, p.responses, p.overlap, p.guidelines, p.properties) for p in find_projects(argilla, collection)
        ]
    by_id = {
        id_: (
            record["fields"],
            record["metadata"],
            record["status"],
            sorted((names[r["user_id"]], r["status"], json.dumps(r["values"])) for r in record["responses"]),
        )
        for id_, record in records(workspace, collection).items()
    }
    return {"projects": projects, "records": by_id}


def test_a_restored_server_holds_the_same_and_a_pull_changes_nothing(
    first: Workspace, move: Callable[[Workspace], Workspace], tmp_path: Path
) -> None:
    collection, asked, ann, robot = labelled(first)
    pull(first, collection, quiet)
    before = held(first, collection)
    with Database(first.database) as database:
        judged = [list(database.judgements([collection], status)) for status in ("submitted", "draft", "discarded")]
    assert [len(part) for part in judged] == [5, 1, 2]
    saved = backup(first, tmp_path / "labels.jsonl.gz", quiet)
    assert (saved.projects, saved.records, saved.responses) == (3, 11, 8)

    second = move(first)
    done = restore(second, saved.path, quiet)
    assert (done.projects, done.records, done.responses, done.refused) == (3, 11, 8, {})
    assert {ann.name, robot.name} <= set(done.raters)
    assert held(second, collection) == before
    pulled = pull(second, collection, quiet)
    assert (pulled.new, pulled.changed, pulled.withdrawn, pulled.unchanged) == (0, 0, 0, 8)
    with Database(first.database) as database:
        assert judged == [
            list(database.judgements([collection], status)) for status in ("submitted", "draft", "discarded")
        ]
    # The deleted record stays deleted, and nothing is sent twice.
    assert push(second, collection, quiet).sent == 0
    assert asked[11].id not in records(second, collection)

    again = restore(second, saved.path, quiet)
    assert again == Restored()
    assert held(second, collection) == before

    # What is taken back on the second server is followed.
    (response,) = records(second, collection)[asked[0].id]["responses"]
    with connect(second) as argilla:
        argilla.call("DELETE", f"responses/{response['id']}")
    assert pull(second, collection, quiet).withdrawn == 1


def test_raters_are_annotators_with_new_passwords_and_the_file_holds_no_secret(
    first: Workspace, move: Callable[[Workspace], Workspace], labelling_server: Workspace, tmp_path: Path
) -> None:
    collection, _, ann, _ = labelled(first)
    (record, *_) = records(first, collection).values()
    Person("owner", ann.url, control.credentials(labelling_server).api_key).answer(record, "discarded")
    saved = backup(first, tmp_path / "labels.jsonl.gz", quiet)
    assert stat.S_IMODE(saved.path.stat().st_mode) == 0o600
    known = control.credentials(labelling_server)
    text = gzip.decompress(saved.path.read_bytes()).decode()
    assert all(secret not in text for secret in (known.password, known.api_key, ann.key, "password_hash"))
    assert "secret-model" not in text
    second = move(first)
    restore(second, saved.path, quiet)
    with connect(second) as argilla:
        users = {user["username"]: user for user in argilla.call("GET", "users")["items"]}
    assert users[ann.name]["role"] == "annotator"
    assert users[ann.name]["api_key"] != ann.key
    assert [r.labels for r in list_raters(second) if r.username == ann.name] == [True]


def test_what_was_said_since_the_backup_stays(first: Workspace, tmp_path: Path) -> None:
    collection, asked, ann, robot = labelled(first)
    saved = backup(first, tmp_path / "labels.jsonl.gz", quiet)
    there = records(first, collection)
    ann.answer(there[asked[1].id], preference="tie")
    robot.answer(there[asked[0].id], truthful=1)
    (of_robot,) = [r for r in there[asked[4].id]["responses"] if r["values"].get("preference")]
    robot.call("DELETE", f"responses/{of_robot['id']}")
    now = held(first, collection)
    done = restore(first, saved.path, quiet)
    assert done == Restored(responses=1)
    after = held(first, collection)
    changed = [id_ for id_ in after["records"] if after["records"][id_] != now["records"][id_]]
    assert changed == [asked[4].id]


def test_candidates_of_later_are_sent_after_a_restore(
    first: Workspace, move: Callable[[Workspace], Workspace], tmp_path: Path
) -> None:
    collection = store(first, candidate(0))
    push(first, collection, quiet)
    saved = backup(first, tmp_path / "labels.jsonl.gz", quiet)
    with Database(first.database) as database:
        database.add(collection, [candidate(1)])
    push(first, collection, quiet)
    second = move(first)
    restore(second, saved.path, quiet)
    assert push(second, collection, quiet).sent == 1
    assert len(records(second, collection)) == 2


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory, labelling_server: Workspace) -> list[str]:
    """The lines of a good backup."""
    workspace = workspaces.create(tmp_path_factory.mktemp("good") / "workspace")
    workspace = beside(labelling_server, workspace, workspace="good")
    labelled(workspace)
    saved = backup(workspace, None, quiet)
    assert saved.path.parent == workspace.root / "backups"
    return gzip.decompress(saved.path.read_bytes()).decode().splitlines()


def spoil(lines: list[str], kind: str, changes: dict[str, Any]) -> tuple[list[str], int]:
    """The lines with the first one of a kind changed, and its number."""
    number = next(n for n, line in enumerate(lines) if json.loads(line)["kind"] == kind)
    return [*lines[:number], json.dumps(json.loads(lines[number]) | changes), *lines[number + 1 :]], number + 1


def complaint(workspace: Workspace, path: Path) -> str:
    with pytest.raises(UserError) as error:
        restore(workspace, path, quiet)
    (line,) = error.value.lines
    assert str(path) in line
    with connect(workspace) as argilla:
        assert argilla.call("GET", "me/datasets", workspace_id=argilla.workspace_id)["items"] == []
    return line


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("backup", {"version": 2}, "a backup of version 2; this veritune reads version 1"),
        ("backup", {"kind": "rater"}, "line 1"),
        ("rater", {"username": ""}, "rater.username"),
        ("project", {"overlap": 0}, "project.overlap"),
        ("project", {"marker": {"collection": "x", "responses": 2, "layout": 9}}, "another version of veritune"),
        ("record", {"responses": [{"user": "ann", "status": "approved"}]}, "record.responses.0.status"),
        ("record", {"surprise": 1}, "record.surprise"),
        ("record", {"kind": "bomb"}, "does not match any of the expected tags"),
        ("end", {"records": 12}, "cut off after 11 records"),
    ],
)
def test_a_spoiled_line_is_named_before_anything_is_sent(
    first: Workspace, lines: list[str], tmp_path: Path, kind: str, changes: dict[str, Any], reason: str
) -> None:
    spoiled, number = spoil(lines, kind, changes)
    path = tmp_path / "spoiled.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(spoiled).encode()))
    line = complaint(first, path)
    assert reason in line
    assert f"line {number}" in line or kind in ("backup", "end")


def test_a_damaged_file_is_told_from_a_backup(first: Workspace, lines: list[str], tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(lines).encode())
    path = tmp_path / "damaged.jsonl.gz"
    without_project = [line for line in lines if json.loads(line)["kind"] != "project"]
    for content, reason in {
        whole[: len(whole) // 2]: "damaged, cut off, or no backup",
        whole[:200] + b"\x00\x00\x00\x00" + whole[204:]: "damaged",
        b"plain text": "no backup of veritune",
        b"": "cut off after 0 records",
        gzip.compress(b"not json"): "line 1: the line: Invalid JSON",
        gzip.compress("\n".join(lines[:-1]).encode()): "cut off after 11 records",
        gzip.compress("\n".join([*lines, lines[1]]).encode()): "the backup ended on the line before",
        gzip.compress("\n".join(without_project).encode()): "a 'record' line stands in the wrong place",
        gzip.compress("\n".join([lines[0], *lines]).encode()): "line 2: a 'backup' line stands in the wrong place",
    }.items():
        path.write_bytes(content)
        assert reason in complaint(first, path)
    path.unlink()
    assert "no such file" in complaint(first, path)
    path.mkdir()
    assert "can't be read (Is a directory)" in complaint(first, path)


def test_a_backup_that_fails_leaves_the_one_before(first: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl.gz"
    store_and_push = store(first, candidate(0))
    push(first, store_and_push, quiet)
    assert backup(first, path, quiet) == BackedUp(path, projects=1, records=1)
    before = path.read_bytes()
    (first.root / workspaces.SETTINGS_FILE).write_text(
        f'[argilla]\nurl = "http://127.0.0.1:{free_port()}"\napi_key = "k"\n'
    )
    with pytest.raises(UserError, match="nothing answers there"):
        backup(Workspace(first.root), path, quiet)
    assert path.read_bytes() == before
    assert list(tmp_path.glob(".labels*")) == []


def test_a_place_that_can_not_be_written_is_named(first: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the backup can't be written"):
        backup(first, tmp_path / "file" / "labels.jsonl.gz", quiet)


def test_the_commands_tell_what_was_done(first: Workspace, veritune: Callable[..., Any], tmp_path: Path) -> None:
    labelled(first)
    path = tmp_path / "labels.jsonl.gz"
    feedback = ("--workspace", str(first.root), "feedback")
    assert f"{path}: 3 projects, 11 records, 8 responses" in veritune(*feedback, "backup", str(path)).err
    assert "added: 0 projects, 0 records, 0 responses" in veritune(*feedback, "restore", str(path)).err
