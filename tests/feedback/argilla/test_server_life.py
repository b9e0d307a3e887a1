"""The labelling server's life: one command starts it, and whatever happens to it is told in one line."""

import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from feedback import workspace as workspaces
from feedback.argilla.connection import URL_VARIABLE
from feedback.argilla.server import control
from feedback.errors import UserError
from feedback.workspace import Workspace
from tests.feedback.argilla.serving import add_records, answer_yes, call, fetch, free_port, make_dataset, sign_in

ROOT = Path(__file__).parents[3]
# Its first thread has ended, while another has the port for a second.
DYING = """
import ctypes, os, socket, sys, threading, time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
threading.Thread(target=lambda: (time.sleep(1), os._exit(0))).start()
print("there", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
EARLIER = "2026-01-01 an earlier line\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    # A name that means something in a URL, in a configuration file and to a shell.
    workspace = workspaces.create(tmp_path / "100% ours? #1 (é)")
    yield workspace
    control.stop(workspace)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a server that ran and was stopped has left."""
    workspace = workspaces.create(tmp_path_factory.mktemp("left") / "workspace")
    control.start(workspace, port=free_port())
    control.stop(workspace)
    return home(workspace)


def home(workspace: Workspace) -> Path:
    return workspace.root / "argilla"


@dataclass(frozen=True)
class Served:
    """A workspace whose server was started by the command, where an earlier one had left its logs; what it said."""

    workspace: Workspace
    port: str
    said: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    workspace, port = workspaces.create(tmp_path_factory.mktemp("served") / "workspace"), str(free_port())
    home(workspace).mkdir()
    full = EARLIER * (5 * 2**20 // len(EARLIER))
    for name, text in (("", full), (".1", "old 1"), (".2", "old 2"), (".3", "old 3")):
        log = home(workspace) / f"server.log{name}"
        log.touch(0o600)
        log.write_text(text)
    command = [sys.executable, "-m", "ui", "--workspace", str(workspace.root), "feedback", "serve", "--port", port]
    ended = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, umask=0o022, check=True)
    yield Served(workspace, port, ended.stderr)
    control.stop(workspace)


def test_serve_says_where_the_server_is_and_who_may_enter(served: Served) -> None:
    workspace, known = served.workspace, control.credentials(served.workspace)
    assert f"http://127.0.0.1:{served.port}\n" in served.said
    assert f"user owner, password in {home(workspace) / 'credentials.json'}" in served.said
    assert known.password not in served.said
    assert known.api_key not in served.said
    assert call(workspace, "GET", "me")["role"] == "owner"
    assert [place["name"] for place in call(workspace, "GET", "me/workspaces")["items"]] == ["veritune"]


def test_what_it_writes_is_for_its_user_alone(served: Served) -> None:
    place = home(served.workspace)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    (place / "argilla.db-wal").stat()
    for path in place.rglob("*"):
        # What it copies there from its own package are public pages, in a folder of mode 0700.
        if "statics" not in path.parts:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_log_rotates(served: Served) -> None:
    log = control.status(served.workspace).log
    assert "Application startup complete" in log.read_text()
    assert log.stat().st_size < 10_000
    assert (log.with_name("server.log.1")).read_text().startswith(EARLIER)
    assert (log.with_name("server.log.2")).read_text() == "old 1"
    assert (log.with_name("server.log.3")).read_text() == "old 2"
    assert not (log.with_name("server.log.4")).exists()


def test_serving_twice_says_that_it_runs_and_stop_ends_it(
    served: Served, veritune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("--workspace", str(served.workspace.root), "feedback")
    status = veritune(*run, "status", "--json")
    assert (status["state"], status["url"]) == ("ready", f"http://127.0.0.1:{served.port}")
    again = veritune(*run, "serve", "--port", str(free_port()))
    assert again.status == 0
    assert f"http://127.0.0.1:{served.port} (it runs already)" in again.err
    assert "another Argilla" not in again.err
    monkeypatch.setenv(URL_VARIABLE, "http://elsewhere:6900")
    assert "push and pull go there, to http://elsewhere:6900" in veritune(*run, "serve").lines[-1]
    monkeypatch.delenv(URL_VARIABLE)
    assert veritune(*run, "status", "--json")["pid"] == status["pid"]

    assert "has ended" in veritune(*run, "stop").err
    assert servers(served.workspace) == []
    assert veritune(*run, "status", "--json")["state"] == "not running"
    assert "does not run" in veritune(*run, "stop").err


def test_labels_and_sessions_outlive_it(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    # Settings for another Argilla are not for this one.
    monkeypatch.setenv("ARGILLA_DATABASE_URL", "postgresql://elsewhere/argilla")
    monkeypatch.setenv("ARGILLA_BASE_URL", "/elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    control.start(workspace, port=free_port())
    (record,) = add_records(workspace, make_dataset(workspace, "kept"), "some text")
    answer_yes(workspace, record)
    token = json.loads(sign_in(workspace).text)["access_token"]
    known = control.credentials(workspace)
    (server,) = servers(workspace)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    assert not control.status(workspace).running
    assert not control.stop(workspace)

    control.start(workspace, port=free_port())
    assert control.credentials(workspace) == known
    assert call(workspace, "GET", f"records/{record}")["status"] == "completed"
    assert fetch(workspace, "/api/v1/me", Authorization=f"Bearer {token}").status == 200
    # After an end in good order all of it is in the one file.
    control.stop(workspace)
    assert not (home(workspace) / "argilla.db-wal").exists()


def test_two_starts_at_once_start_one(workspace: Workspace) -> None:
    home(workspace).mkdir()
    command = [sys.executable, "-m", "ui", "--workspace", str(workspace.root), "feedback", "serve", "--port"]
    with (home(workspace) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        both = [
            subprocess.Popen([*command, str(free_port())], cwd=ROOT, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        assert ["waiting" in process.stderr.readline() for process in both if process.stderr] == [True, True]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(servers(workspace)) == 1
    url = control.status(workspace).url
    assert all(f"labelling server: {url}" in text for text in said)
    assert sum("starting the labelling server" in text for text in said) == 1


def test_an_address_that_can_not_be_had(workspace: Workspace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: taken by another program.*--port {port + 1}"):
            control.start(workspace, port=port)
    with pytest.raises(UserError, match=r"--host 192\.0\.2\.1"):
        control.start(workspace, "192.0.2.1", free_port())
    with pytest.raises(UserError, match="--port 70000"):
        control.start(workspace, port=70000)


def test_the_number_of_a_killed_server_may_be_another_program_s(workspace: Workspace) -> None:
    home(workspace).mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        record = {"pid": other.pid, "host": "127.0.0.1", "port": 6900}
        (home(workspace) / "server.json").write_text(json.dumps(record))
        assert not control.status(workspace).running
        assert not control.stop(workspace)
        assert other.poll() is None
        other.kill()
    (home(workspace) / "server.json").write_text("{")
    assert not control.status(workspace).running


@pytest.mark.parametrize("damage", ["no database", "cut short", "overwritten", "overwritten within"])
def test_a_damaged_database_is_told_and_left_alone(workspace: Workspace, left: Path, damage: str) -> None:
    shutil.copytree(left, home(workspace))
    database = home(workspace) / "argilla.db"
    whole = database.read_bytes()
    half = len(whole) // 8192 * 4096
    damaged = {
        "no database": b"this was a database " * 5000,
        "cut short": whole[: half + 100],
        "overwritten": b"\0" * 4096 + whole[4096:],
        "overwritten within": whole[:4096] + b"\xff" * half + whole[4096 + half :],
    }[damage]
    database.write_bytes(damaged)
    with pytest.raises(UserError) as caught:
        control.start(workspace, port=free_port())
    (line,) = caught.value.lines
    assert str(database) in line
    assert "damaged" in line
    assert "move argilla.db, argilla.db-wal and argilla.db-shm out" in line
    assert "`veritune feedback restore`" in line
    assert database.read_bytes() == damaged
    if damage == "overwritten":
        for path in home(workspace).glob("argilla.db*"):
            path.rename(workspace.root / path.name)
        assert control.start(workspace, port=free_port()).ready


@pytest.mark.parametrize("size", ["64k", "1m", "8m"])
def test_a_full_disk_is_told(workspace: Workspace, size: str) -> None:
    with disk_of(home(workspace), size), pytest.raises(UserError) as caught:
        control.start(workspace, port=free_port())
    (line,) = caught.value.lines
    assert line == f"{home(workspace)}: no space left on this disk; free some and start again"


@pytest.mark.parametrize("most", [50_000, 200_000])
def test_a_start_that_could_not_write_all_is_made_good_by_the_next(workspace: Workspace, most: int) -> None:
    # A file may not grow beyond this: the database's first tables are there, the others are not.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(UserError, match="no space left on this disk"):
            control.start(workspace, port=free_port())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert control.start(workspace, port=free_port()).ready


def test_a_first_start_that_was_cut_short_is_made_good(workspace: Workspace) -> None:
    def kill() -> None:
        while not servers(workspace):
            pass
        os.kill(servers(workspace)[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    # Who dies is not waited for.
    with pytest.raises(UserError, match=r"ended while it started \(without a word\).*start\.log"):
        control.start(workspace, port=free_port())
    killer.join()
    with sqlite3.connect(home(workspace) / "argilla.db") as db:
        db.execute("CREATE TABLE workspaces (id CHAR(32))")
    db.close()
    assert control.start(workspace, port=free_port()).ready


def test_the_port_of_a_killed_server_is_waited_for(workspace: Workspace) -> None:
    """While one of its threads still writes it is neither there nor gone."""
    home(workspace).mkdir()
    (home(workspace) / "argilla.db").write_text("no database, so that the start ends early")
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", DYING, str(port)], stdout=subprocess.PIPE) as dying:
        assert dying.stdout
        dying.stdout.readline()
        while psutil.Process(dying.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        record = {"pid": dying.pid, "host": "127.0.0.1", "port": port}
        (home(workspace) / "server.json").write_text(json.dumps(record))
        assert not control.status(workspace).running
        with pytest.raises(UserError, match="damaged"):
            control.start(workspace, port=port)


def test_lost_credentials_are_made_anew(workspace: Workspace, left: Path) -> None:
    shutil.copytree(left, home(workspace))
    port, lost = free_port(), control.credentials(workspace)
    (home(workspace) / "credentials.json").unlink()
    control.start(workspace, port=port)
    assert control.credentials(workspace).api_key != lost.api_key
    assert sign_in(workspace).status == 201
    assert sign_in(workspace, lost.password).status == 401
    control.stop(workspace)
    (home(workspace) / "credentials.json").write_text("{}")
    with pytest.raises(UserError, match=r"credentials\.json: damaged; remove it"):
        control.start(workspace, port=port)
    assert servers(workspace) == []


def test_beyond_loopback_it_says_what_it_exposes(workspace: Workspace, veritune: Callable[..., Any]) -> None:
    port = str(free_port())
    ended = veritune("--workspace", str(workspace.root), "feedback", "serve", "--host", "0.0.0.0", "--port", port)
    assert f"http://127.0.0.1:{port}" in ended.err
    assert "--host 0.0.0.0: plain HTTP" in ended.lines[-1]
    assert "reads names, passwords and all records" in ended.lines[-1]


def test_an_ipv6_address(workspace: Workspace) -> None:
    try:
        port = free_port()
        status = control.start(workspace, "::1", port)
    except UserError as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert status.url == f"http://[::1]:{port}"
    assert call(workspace, "GET", "version") == {"version": "2.8.0"}


def servers(workspace: Workspace) -> list[psutil.Process]:
    """The server processes of this workspace, however they were started."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if "embedded" in command and str(home(workspace)) in command:
            found.append(process)
    return found


@contextmanager
def disk_of(folder: Path, size: str) -> Iterator[None]:
    """A small disk of its own for this folder."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk can't be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
