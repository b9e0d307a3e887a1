"""Start, stop and look at the one labelling server of a workspace; it runs on when the command has ended."""

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.argilla.server.address import local_url, require_free
from feedback.argilla.server.environment import python_of_server
from feedback.errors import UserError
from feedback.files import write_atomic
from feedback.lock import only_one
from feedback.workspace import Workspace

if TYPE_CHECKING:
    import psutil

USERNAME = "owner"
PORT = 6900
# A database of a million records may have to be checked and indexed anew.
START_SECONDS, STOP_SECONDS = 600, 20
REPORT_SECONDS = 15


@dataclass(frozen=True)
class Credentials:
    """Of the user who owns all in the workspace's server."""

    username: str
    password: str = field(repr=False)
    api_key: str = field(repr=False)


@dataclass(frozen=True)
class ServerStatus:
    """What is known of a workspace's server; `ready` says that it answers, `url` is for this machine."""

    running: bool
    ready: bool
    url: str | None
    host: str | None
    pid: int | None
    username: str | None
    credentials: Path
    log: Path


def start(
    workspace: Workspace, host: str = "127.0.0.1", port: int = PORT, say: Callable[[str], None] = lambda line: None
) -> ServerStatus:
    """Start the server and wait until it answers; one that runs already stays as it is.

    Args:
        say: takes the lines of progress.

    Raises:
        UserError: the address can't be had, the server's environment can't be made, or the server can't start.
    """
    home = _home(workspace)
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        home.chmod(0o700)
        with only_one(home / "lock", lambda: say("it is being started by another command; waiting")):
            process = _process(home)
            if process is None:
                _wait_for_the_killed(home)
                require_free(host, port)
                python = python_of_server(say)
                _make_secrets(home)
                process = _spawn(home, python, host, port)
                say("starting the labelling server")
                try:
                    record = {"pid": process.pid, "host": host, "port": port}
                    write_atomic(home / "server.json", json.dumps(record) + "\n")
                    _wait_until_ready(workspace, process, say)
                except BaseException:
                    _end(process)
                    raise
            else:
                _wait_until_ready(workspace, process, say)
    except OSError as error:
        raise UserError(f"{error.filename or home}: can't be written ({error.strerror}); see to this disk") from None
    return status(workspace)


def stop(workspace: Workspace) -> bool:
    """End the server in good order; False where none runs."""
    process = _process(_home(workspace))
    if process is not None:
        _end(process)
    return process is not None


def status(workspace: Workspace) -> ServerStatus:
    """Whether the server runs and answers, and where."""
    home = _home(workspace)
    process, secret, log = _process(home), home / "credentials.json", home / "server.log"
    if process is None:
        return ServerStatus(False, False, None, None, None, None, secret, log)
    record, known = _read(home / "server.json"), credentials(workspace)
    url = local_url(record["host"], record["port"])
    return ServerStatus(
        True, _answers(url, known.api_key, 2), url, record["host"], process.pid, known.username, secret, log
    )


def credentials(workspace: Workspace) -> Credentials:
    """The owner's name, password and key.

    Raises:
        UserError: there are none yet, or the file is damaged.
    """
    path = _home(workspace) / "credentials.json"
    try:
        return Credentials(**_read(path))
    except FileNotFoundError:
        raise UserError(f"{path}: not there; `veritune feedback stop` and `veritune feedback serve` make it") from None
    except (ValueError, TypeError):
        raise UserError(
            f"{path}: damaged; remove it, then `veritune feedback stop` and `veritune feedback serve` make another"
        ) from None


def _home(workspace: Workspace) -> Path:
    return workspace.root / "argilla"


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _make_secrets(home: Path) -> None:
    # A secret key that stays: with a fresh one at each start all would have to sign in again.
    if not (home / "secret_key").exists():
        write_atomic(home / "secret_key", secrets.token_hex(32))
    if not (home / "credentials.json").exists():
        made = {"username": USERNAME, "password": secrets.token_urlsafe(16), "api_key": secrets.token_urlsafe(32)}
        write_atomic(home / "credentials.json", json.dumps(made, indent=2) + "\n")


def _spawn(home: Path, python: Path, host: str, port: int) -> "psutil.Process":
    import psutil

    # Settings of another Argilla, or of this Python, are not for this one. A webhook to this machine takes no proxy.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ARGILLA_", "PYTHON"))}
    direct = ",".join(
        filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "localhost,127.0.0.1,::1"])
    )
    environment |= {"PYTHONPATH": str(Path(__file__).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"NO_PROXY": direct, "no_proxy": direct}
    output = home / "start.log"
    output.unlink(missing_ok=True)
    # No subprocess.Popen: the server is not this object's to wait for, and outlives it.
    pid = os.posix_spawn(
        python,
        [str(python), "-P", "-m", "embedded", str(home), host, str(port)],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return psutil.Process(pid)


def _process(home: Path) -> "psutil.Process | None":
    import psutil

    try:
        record = _read(home / "server.json")
        process = psutil.Process(record["pid"])
        command = process.cmdline()
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    # Another program may have got the number of one that was killed. (Its command tells them apart more surely than the
    # time of its start, which is reckoned from a clock that may be set.)
    ours = ["embedded", record["host"], str(record["port"])]
    return process if [*command[-4:-3], *command[-2:]] == ours and _lives(process) else None


def _lives(process: "psutil.Process") -> bool:
    import psutil

    try:
        # Started by this process: so that it does not stay in the table of processes when it has ended.
        return os.waitpid(process.pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        with suppress(psutil.NoSuchProcess):
            # Started by another, which need not have waited for its end.
            ended = process.status() == psutil.STATUS_ZOMBIE and process.num_threads() == 1
            return bool(process.is_running() and not ended)
        return False


def _wait_for_the_killed(home: Path) -> None:
    """A server that was killed keeps its port until the last of its threads has written what it was writing."""
    import psutil

    deadline = time.monotonic() + STOP_SECONDS
    with suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
        killed = psutil.Process(_read(home / "server.json")["pid"])
        while killed.status() == psutil.STATUS_ZOMBIE and _lives(killed) and time.monotonic() < deadline:
            time.sleep(0.05)


def _wait_until_ready(workspace: Workspace, process: "psutil.Process", say: Callable[[str], None]) -> None:
    record, key = _read(_home(workspace) / "server.json"), credentials(workspace).api_key
    url, began, reports = local_url(record["host"], record["port"]), time.monotonic(), 0
    while not _answers(url, key, 1):
        passed = time.monotonic() - began
        if not _lives(process):
            raise UserError(_why_it_ended(_home(workspace)))
        if passed > START_SECONDS:
            raise UserError(f"the labelling server gives no answer for {START_SECONDS} s; see {status(workspace).log}")
        if passed > (reports + 1) * REPORT_SECONDS:
            reports += 1
            say(f"  still starting ({passed:.0f} s)")
        time.sleep(0.1)


def _answers(url: str, key: str, seconds: float) -> bool:
    from http.client import HTTPException
    from urllib.error import URLError
    from urllib.request import ProxyHandler, Request, build_opener

    try:
        request = Request(f"{url}/api/v1/me", headers={"X-Argilla-Api-Key": key})
        # Without proxies: it is on this machine.
        with build_opener(ProxyHandler({})).open(request, timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError, HTTPException):
        return False


def _why_it_ended(home: Path) -> str:
    lines = (home / "start.log").read_text(errors="replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "without a word")
    if last.startswith("cannot start: "):
        return last.removeprefix("cannot start: ")
    # On a full disk it has nowhere to say so.
    if shutil.disk_usage(home).free < 2**20:
        return f"{home}: no space left on this disk; free some and start again"
    return f"the labelling server ended while it started ({last[:300]}); what it said is in {home / 'start.log'}"


def _end(process: "psutil.Process") -> None:
    import psutil

    deadline = time.monotonic() + STOP_SECONDS
    with suppress(psutil.NoSuchProcess):
        process.terminate()
        while _lives(process):
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(0.05)
