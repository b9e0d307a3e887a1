"""The server is killed while people label, or its index is damaged: after the next start all is there and right."""

import os
import shutil
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from feedback import workspace as workspaces
from feedback.argilla.server import control
from feedback.argilla.server.environment import python_of_server
from feedback.workspace import Workspace
from tests.feedback.argilla.people import Person, sign_in
from tests.feedback.argilla.serving import add_records, answer_yes, call, free_port, make_dataset

RATERS, SUBMISSIONS, OVERLAP = 6, 200, 3
PORT = free_port()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    workspace = workspaces.create(tmp_path_factory.mktemp("killed") / "workspace")
    control.start(workspace, port=PORT)
    yield workspace
    control.stop(workspace)


class Labelling:
    """Six people who answer at the same time, three of them each record, while somebody else pushes records."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        distribution = {"strategy": "overlap", "min_submitted": OVERLAP}
        self.dataset = make_dataset(workspace, "labelled", distribution=distribution)
        self.people = [sign_in(workspace, f"rater{number}") for number in range(RATERS)]
        records = add_records(workspace, self.dataset, *(f"text {i}" for i in range(SUBMISSIONS)))
        # By who gives it and for which record.
        self.wanted = {
            (self.people[i % RATERS].name, records[i // OVERLAP]): ("yes", "no")[i % 2] for i in range(SUBMISSIONS)
        }
        self.acknowledged: dict[tuple[str, str], str] = {}
        self.refused: list[str] = []
        self.pushed: list[str] = []
        self._ended, self._counting = threading.Event(), threading.Lock()

    def go_on(self, kill_at: int | None = None) -> None:
        """Give all the answers that are not acknowledged yet; kill the server when so many are."""
        pid = control.status(self.workspace).pid
        assert pid
        self._ended.clear()
        with ThreadPoolExecutor(RATERS + 1) as pool:
            pushing = pool.submit(self._push)
            answering = [pool.submit(self._answer, person, pid, kill_at) for person in self.people]
            for each in answering:
                each.result()
            self._ended.set()
            pushing.result()

    def _answer(self, person: Person, pid: int, kill_at: int | None) -> None:
        left = [key for key in self.wanted if key[0] == person.name and key not in self.acknowledged]
        with httpx.Client(base_url=person.url, headers={"X-Argilla-Api-Key": person.key}, timeout=120) as client:
            for key in left:
                values = {"good": {"value": self.wanted[key]}}
                body = {"items": [{"record_id": key[1], "status": "submitted", "values": values}]}
                try:
                    answer = client.post("/api/v1/me/responses/bulk", json=body)
                except httpx.TransportError:
                    assert self._ended.is_set()
                    return
                error = answer.json()["items"][0]["error"] if answer.is_success else answer.text
                if error:
                    self.refused.append(f"{key}: {error}")
                    continue
                with self._counting:
                    self.acknowledged[key] = self.wanted[key]
                    if len(self.acknowledged) == kill_at:
                        self._ended.set()
                        os.kill(pid, signal.SIGKILL)

    def _push(self) -> None:
        while not self._ended.is_set():
            texts = [f"pushed {len(self.pushed) + i}" for i in range(20)]
            try:
                self.pushed += add_records(self.workspace, self.dataset, *texts)
            except (OSError, HTTPException):
                assert self._ended.is_set()


def database_of(workspace: Workspace) -> Path:
    return workspace.root / "argilla" / "argilla.db"


def opened(database: Path) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(database, timeout=30))


def answers(workspace: Workspace) -> dict[tuple[str, str], str]:
    """What stands in the database, by who gave it and for which record; each at most once."""
    with opened(database_of(workspace)) as db:
        rows = db.execute(
            """SELECT u.username, p.record_id, json_extract(p."values", '$.good.value')
               FROM responses p JOIN users u ON u.id = p.user_id WHERE p.status = 'submitted'"""
        ).fetchall()
    found = {(name, str(UUID(record))): value for name, record, value in rows}
    assert len(found) == len(rows)
    return found


def require_agreement(database: Path) -> None:
    """The index holds each record's text and nothing else, and each record's status is what its answers make it."""
    with opened(database) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.execute("INSERT INTO veritune_text (veritune_text) VALUES ('integrity-check')")
        assert db.execute("SELECT count(*) FROM veritune_text_stale").fetchone() == (0,)
        indexed = db.execute("SELECT rowid, record_id, f0 FROM veritune_text ORDER BY rowid").fetchall()
        texts = db.execute("SELECT rowid, id, json_extract(fields, '$.text') FROM records ORDER BY rowid").fetchall()
        statuses = db.execute(
            """SELECT r.status, count(p.id) >= json_extract(d.distribution, '$.min_submitted')
               FROM records r JOIN datasets d ON d.id = r.dataset_id
               LEFT JOIN responses p ON p.record_id = r.id AND p.status = 'submitted' GROUP BY r.id"""
        ).fetchall()
    assert indexed == texts
    assert set(statuses) <= {("pending", 0), ("completed", 1)}
    assert len(statuses) == len(texts)


def test_no_acknowledged_answer_is_lost(workspace: Workspace) -> None:
    labelling = Labelling(workspace)
    for kill_at in (SUBMISSIONS // 4, SUBMISSIONS // 2):
        labelling.go_on(kill_at)
        assert kill_at <= len(labelling.acknowledged) < SUBMISSIONS
        assert not control.status(workspace).running
        control.start(workspace, port=PORT)
        require_agreement(database_of(workspace))
        assert labelling.acknowledged.items() <= answers(workspace).items() <= labelling.wanted.items()
        with opened(database_of(workspace)) as db:
            there = {str(UUID(record)) for (record,) in db.execute("SELECT id FROM records")}
        assert set(labelling.pushed) <= there
    labelling.go_on()
    assert labelling.refused == []
    assert labelling.acknowledged == labelling.wanted == answers(workspace)
    search = {"query": {"text": {"q": "pushed"}}}
    found = call(workspace, "POST", f"datasets/{labelling.dataset}/records/search?limit=1", search)
    assert found["total"] >= len(labelling.pushed) > 0
    require_agreement(database_of(workspace))


# Each with what it does to the database, while no server runs.
DAMAGES = {
    "rows of the index were lost": "DELETE FROM veritune_text WHERE rowid % 2",
    "the index has rows of no record": "INSERT INTO veritune_text (rowid, record_id, f0) VALUES (999999, 'x', 'apple')",
    "the index is older": "DROP TABLE veritune_text; CREATE VIRTUAL TABLE veritune_text USING fts5(record_id, f0)",
    "rowids were given anew": """
        PRAGMA foreign_keys = OFF; DELETE FROM records WHERE rowid = (SELECT min(rowid) FROM records);
        CREATE TABLE copy AS SELECT * FROM records; DELETE FROM records; INSERT INTO records SELECT * FROM copy;
        DROP TABLE copy; DELETE FROM veritune_text_stale""",
    "triggers were lost, and changes missed": """
        DROP TRIGGER veritune_text_insert; DROP TRIGGER veritune_text_update; DROP TRIGGER veritune_text_delete;
        UPDATE records SET fields = json_set(fields, '$.text', 'cherry') WHERE json_extract(fields, '$.text') = 'apple';
        DELETE FROM records WHERE json_extract(fields, '$.text') = 'banana';
        INSERT INTO records (id, fields, dataset_id, inserted_at, updated_at, status)
            SELECT '0123456789abcdef0123456789abcdef', '{"text": "damson"}', id, inserted_at, updated_at, 'pending'
            FROM datasets ORDER BY inserted_at DESC LIMIT 1""",
    "the status of records is wrong": """
        UPDATE records SET status = iif(status = 'pending', 'completed', 'pending')""",
}
FOUND_AFTER = {
    "triggers were lost, and changes missed": ["cherry", "damson"],
    "rowids were given anew": ["apple", "banana"],
}
# What each start does, for several databases at once: runs inside the server's environment.
HEAL = """
import sys
from sqlalchemy import create_engine
from embedded import text_index

for path in sys.argv[1:]:
    text_index.heal(create_engine(f"sqlite:///{path}"))
"""


def damage(database: Path, how: str) -> None:
    with opened(database) as db:
        db.executescript(DAMAGES[how])
        db.commit()


@pytest.fixture(scope="module")
def left(workspace: Workspace) -> tuple[str, Path]:
    """A dataset with two records, one of them completed, and the database that its server left behind."""
    if not control.status(workspace).running:
        control.start(workspace, port=PORT)
    dataset = make_dataset(workspace, "fruit")
    apple, _ = add_records(workspace, dataset, "apple", "banana")
    answer_yes(workspace, apple)
    control.stop(workspace)
    return dataset, database_of(workspace)


@pytest.fixture(scope="module")
def healed(left: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies of it, each damaged in one way and healed."""
    folder = tmp_path_factory.mktemp("damaged")
    copies = {how: Path(shutil.copy(left[1], folder / f"{number}.db")) for number, how in enumerate(DAMAGES)}
    for how, path in copies.items():
        damage(path, how)
        with pytest.raises((AssertionError, sqlite3.DatabaseError)):
            require_agreement(path)
    server = Path(control.__file__).parent
    environment = os.environ | {"PYTHONPATH": str(server), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([python_of_server(print), "-P", "-c", HEAL, *copies.values()], env=environment, check=True)
    return copies


@pytest.mark.parametrize("how", DAMAGES)
def test_an_index_that_was_damaged_is_put_right(healed: dict[str, Path], how: str) -> None:
    require_agreement(healed[how])
    with opened(healed[how]) as db:
        query = "SELECT f0 FROM veritune_text WHERE veritune_text MATCH 'apple OR banana OR cherry OR damson'"
        assert sorted(text for (text,) in db.execute(query)) == FOUND_AFTER.get(how, ["apple", "banana"])


def test_the_next_start_does_so(workspace: Workspace, left: tuple[str, Path]) -> None:
    dataset, database = left
    damage(database, "the status of records is wrong")
    damage(database, "triggers were lost, and changes missed")
    control.start(workspace, port=PORT)
    require_agreement(database)
    search = {"query": {"text": {"q": "apple | banana | cherry | damson"}}}
    found = call(workspace, "POST", f"datasets/{dataset}/records/search", search)["items"]
    assert sorted(item["record"]["fields"]["text"] for item in found) == ["cherry", "damson"]
