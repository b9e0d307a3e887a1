"""`veritune ui` as it is started: whom it answers, what it asks for, and what it never hands out."""

import json
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback import workspace as workspaces
from feedback.errors import UserError
from feedback.workspace import Workspace
from ui.app import start


def fetch(address: str, data: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data), timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_on_loopback_it_answers_without_a_password_and_serves_no_files(
    serve: Callable[..., Any], workspace: Workspace
) -> None:
    served = serve(workspace)
    assert served.address.startswith("http://127.0.0.1:")
    assert fetch(served.address + "config") == 200
    for path in (workspace.root / workspaces.SETTINGS_FILE, Path("/etc/passwd"), Path(__file__)):
        assert fetch(f"{served.address}gradio_api/file={path}") == 403
    with urllib.request.urlopen(served.address + "gradio_api/info") as answer:
        assert json.load(answer) == {"named_endpoints": {}, "unnamed_endpoints": {}}
    served.process.send_signal(signal.SIGINT)
    _, rest = served.process.communicate(timeout=30)
    assert served.process.returncode == 130
    assert "Traceback" not in rest


def test_beyond_loopback_it_asks_for_a_password_made_for_this_start(
    serve: Callable[..., Any], workspace: Workspace
) -> None:
    served = serve(workspace, host="0.0.0.0", lines=2)
    password = served.lines[1].split("password ")[1].split()[0]
    assert len(password) >= 20
    assert fetch(served.address + "config") == 401
    login = served.address + "login"
    assert fetch(login, b"username=veritune&password=wrong") == 400
    assert fetch(login, b"username=other&password=" + password.encode()) == 400
    assert fetch(login, b"username=veritune&password=" + password.encode()) == 200


def test_an_address_that_can_not_be_had_is_told_in_one_line(workspace: Workspace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: taken.*--port {port + 1}"):
            start(workspace, "127.0.0.1", port, None)
    with pytest.raises(UserError, match=r"--host 192\.0\.2\.1"):
        start(workspace, "192.0.2.1", 7860, None)
    with pytest.raises(UserError, match="--port 70000"):
        start(workspace, "127.0.0.1", 70000, None)
