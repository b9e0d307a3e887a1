"""To which Argilla a workspace talks, and what is said when that does not work."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from feedback import workspace as workspaces
from feedback.argilla.connection import KEY_VARIABLE, URL_VARIABLE, connect
from feedback.argilla.server import control
from feedback.errors import UserError
from feedback.workspace import Workspace
from tests.feedback.argilla.people import beside, sign_in
from tests.feedback.argilla.serving import free_port

SECRET = "key-that-nobody-may-see"


@contextmanager
def answering(answers: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Iterator[str]:
    """Another server on this machine, which is no Argilla 2; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get(self.path, "<html>nothing here</html>")
            self.send_response(status if self.path in answers or status != 200 else 404)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def at(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Workspace]:
    """The workspace, pointed to an address by the environment."""

    def point(url: str, key: str = SECRET) -> Workspace:
        monkeypatch.setenv(URL_VARIABLE, url)
        monkeypatch.setenv(KEY_VARIABLE, key)
        return workspace

    return point


def complaint(workspace: Workspace) -> str:
    """The one line that a failed connection gives; no secret is in it."""
    with pytest.raises(UserError) as error:
        connect(workspace)
    (line,) = error.value.lines
    assert "\n" not in line
    assert SECRET not in line
    return line


def test_the_workspaces_own_server_is_found(labelling_server: Workspace) -> None:
    lines: list[str] = []
    with connect(labelling_server, lines.append) as argilla:
        assert argilla.address == control.status(labelling_server).url
        assert argilla.call("GET", "me")["username"] == control.credentials(labelling_server).username
        assert argilla.workspace_name == "veritune"
    assert lines == []


def test_another_argilla_is_named_in_the_settings(workspace: Workspace, labelling_server: Workspace) -> None:
    with connect(beside(labelling_server, workspace, workspace="another place")) as argilla:
        places = {place["id"]: place["name"] for place in argilla.call("GET", "me/workspaces")["items"]}
        assert places[argilla.workspace_id] == "another place"


def test_the_environment_wins_over_the_settings(
    workspace: Workspace, labelling_server: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = beside(labelling_server, workspace, url="http://127.0.0.1:1", api_key=SECRET)
    monkeypatch.setenv(URL_VARIABLE, control.status(labelling_server).url or "")
    monkeypatch.setenv(KEY_VARIABLE, control.credentials(labelling_server).api_key)
    with connect(there) as argilla:
        assert argilla.address == control.status(labelling_server).url


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(
    labelling_server: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    connect(labelling_server).http.close()


def test_a_server_that_does_not_run_is_to_be_started(workspace: Workspace) -> None:
    line = complaint(workspace)
    assert "does not run" in line
    assert "veritune feedback serve" in line


def test_a_closed_port_is_named(at: Callable[..., Workspace]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    line = complaint(at(url))
    assert line.startswith(f"{url}: nothing answers there")
    assert f"check {URL_VARIABLE} and {KEY_VARIABLE}" in line


def test_a_wrong_key_is_named(at: Callable[..., Workspace], labelling_server: Workspace) -> None:
    line = complaint(at(control.status(labelling_server).url or ""))
    assert "does not know this API key" in line
    assert f"check {URL_VARIABLE} and {KEY_VARIABLE}" in line


def test_a_raters_key_does_not_do(
    at: Callable[..., Workspace], workspace: Workspace, labelling_server: Workspace
) -> None:
    ann = sign_in(labelling_server, "ann")
    line = complaint(at(ann.url, ann.key))
    assert f"belongs to '{ann.name}', who is annotator there; an owner's key is needed" in line


def test_something_else_at_the_address_is_told_from_argilla(at: Callable[..., Workspace]) -> None:
    for answers in ({}, {"/api/v1/version": "<html>"}, {"/api/v1/version": {"hello": 1}}, {"/api/v1/version": []}):
        with answering(answers) as url:
            assert complaint(at(url)).startswith(f"{url}: something answers there, but it is no Argilla 2")


@pytest.mark.parametrize("version", ["1.29.1", "2.7.9", "3.0.0"])
def test_a_version_that_does_not_fit_is_named(at: Callable[..., Workspace], version: str) -> None:
    with answering({"/api/v1/version": {"version": version}}) as url:
        line = complaint(at(url))
    assert f"this is Argilla {version}; veritune needs 2.8 or a later 2.x" in line


def test_a_redirect_is_not_given_the_key(at: Callable[..., Workspace]) -> None:
    with answering({}, status=302, headers={"Location": "https://elsewhere.example/api"}) as url:
        assert "points to https://elsewhere.example/api; give that address instead" in complaint(at(url))


def test_a_failing_server_is_named(at: Callable[..., Workspace]) -> None:
    with answering({}, status=503) as url:
        assert f"{url}: the server failed at version (HTTP 503)" in complaint(at(url))


@pytest.mark.parametrize("url", ["localhost:6900", "ftp://host", "http://", "nonsense", "http://[::1", "http://a:x"])
def test_an_address_that_is_none_is_named(at: Callable[..., Workspace], url: str) -> None:
    assert f"{URL_VARIABLE}: {url!r} is no web address" in complaint(at(url))


def test_an_address_without_a_key_and_a_key_without_an_address(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, "http://127.0.0.1:1")
    assert f"set {KEY_VARIABLE}" in complaint(workspace)
    monkeypatch.delenv(URL_VARIABLE)
    (workspace.root / workspaces.SETTINGS_FILE).write_text(f'[argilla]\napi_key = "{SECRET}"\n')
    assert "argilla.api_key stands without argilla.url" in complaint(Workspace(workspace.root))


def test_a_key_that_can_be_no_key_is_named(at: Callable[..., Workspace]) -> None:
    assert "holds characters that no key has" in complaint(at("http://127.0.0.1:1", "schlüssel\n"))


def test_a_key_that_others_can_read_is_warned_of(workspace: Workspace, labelling_server: Workspace) -> None:
    there = beside(labelling_server, workspace)
    file = there.root / workspaces.SETTINGS_FILE
    for mode, warnings in ((0o600, 0), (0o644, 1), (0o640, 1)):
        file.chmod(mode)
        lines: list[str] = []
        connect(there, lines.append).http.close()
        assert len(lines) == warnings
        assert all(f"chmod 600 {file}" in line for line in lines)
    assert control.credentials(labelling_server).api_key not in "".join(lines)


@pytest.mark.parametrize("settings", ["overlap = 0", "url = 1", 'unknown = "x"'])
def test_settings_that_are_wrong_are_named(workspace: Workspace, settings: str) -> None:
    (workspace.root / workspaces.SETTINGS_FILE).write_text(f"[argilla]\n{settings}\n")
    assert f"argilla.{settings.split(' ')[0]}" in complaint(Workspace(workspace.root))


def test_a_command_says_it_in_one_line(workspace: Workspace, veritune: Callable[..., Any]) -> None:
    for command in (("pull", "main"), ("push", "main"), ("raters", "list"), ("backup",)):
        ended = veritune("--workspace", str(workspace.root), "feedback", *command)
        assert ended.status == 2
        assert len(ended.lines) == 1
        assert "veritune feedback serve" in ended.lines[0]
