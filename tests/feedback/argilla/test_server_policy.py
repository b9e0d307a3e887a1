"""What the labelling server answers to whom, and what it says with every answer."""

import base64
import hashlib
import json
import re
import socket
from urllib.parse import urlsplit

import pytest

from feedback.argilla.server import control
from feedback.workspace import Workspace
from tests.feedback.argilla.serving import add_records, call, fetch, make_dataset, sign_in

LIMIT = 64 * 2**20


def raw(workspace: Workspace, head: str, chunks: int = 0) -> str:
    """The first line of the answer to a request as it is written here; each chunk has a megabyte."""
    address = urlsplit(str(control.status(workspace).url))
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        try:
            for _ in range(chunks):
                connection.sendall(b"100000\r\n" + b" " * 2**20 + b"\r\n")
            connection.sendall(b"0\r\n\r\n" if chunks else b"")
        except ConnectionError:
            pass
        return connection.makefile().readline().strip()


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/sign-in", 200), ("/api/v1/version", 200), ("/api/v1/me", 401), ("/api/v1/nothing", 404)],
)
def test_every_answer_says_what_a_browser_may_do_with_it(labelling_server: Workspace, path: str, status: int) -> None:
    answer = fetch(labelling_server, path)
    assert answer.status == status
    assert_guarded(answer.headers)


def assert_guarded(headers: object) -> None:
    policy = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))  # type: ignore[index]
    assert policy["default-src"] == "'self'"
    assert policy["img-src"] == "'self' data: blob:"
    assert policy["connect-src"] == policy["base-uri"] == policy["form-action"] == "'self'"
    assert policy["object-src"] == policy["frame-ancestors"] == "'none'"
    assert re.fullmatch(r"'self'( 'sha256-[^']+')+", policy["script-src"])
    assert headers["x-content-type-options"] == "nosniff"  # type: ignore[index]
    assert headers["referrer-policy"] == "no-referrer"  # type: ignore[index]
    assert headers["x-frame-options"] == "DENY"  # type: ignore[index]


def test_the_page_s_own_scripts_may_run(labelling_server: Workspace) -> None:
    page = fetch(labelling_server, "/sign-in")
    scripts = [s for s in re.findall(r"<script(?![^>]*src=)[^>]*>(.*?)</script>", page.text, re.DOTALL) if s]
    assert scripts
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in page.headers["content-security-policy"]


def test_no_page_of_another_site_may_read_an_answer(labelling_server: Workspace) -> None:
    asked = {"Origin": "http://evil.example", "Access_Control_Request_Method": "GET"}
    for method in ("GET", "OPTIONS"):
        answer = fetch(labelling_server, "/api/v1/version", method=method, **asked)
        assert answer.headers["access-control-allow-origin"] is None


def test_names_that_are_not_of_this_machine_are_refused(labelling_server: Workspace) -> None:
    for name in (
        "evil.example",
        "evil.example:6900",
        "192.0.2.1",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
    ):
        answer = fetch(labelling_server, "/api/v1/version", Host=name)
        assert (answer.status, name) == (403, name)
        assert "only to localhost" in answer.text
        assert_guarded(answer.headers)
    # Through a tunnel the port is another one.
    for name in ("localhost", "LOCALHOST:7000", "127.0.0.1:7000", "127.9.9.9", "[::1]:7000", "[::1]"):
        assert fetch(labelling_server, "/api/v1/version", Host=name).status == 200


def test_a_request_has_a_limit(labelling_server: Workspace) -> None:
    head = "POST /api/v1/token HTTP/1.1\nHost: localhost\nContent-Type: application/x-www-form-urlencoded\n"
    said = raw(labelling_server, f"{head}Content-Length: {LIMIT + 1}\n\n")
    assert said.startswith("HTTP/1.1 413 ")
    said = raw(labelling_server, f"{head}Transfer-Encoding: chunked\n\n", chunks=LIMIT // 2**20 + 1)
    assert said.startswith("HTTP/1.1 413 ")
    # As many records as the API takes at once go through, long as they are.
    dataset = make_dataset(labelling_server, "large")
    assert len(add_records(labelling_server, dataset, *("long " * 20_000 for _ in range(500)))) == 500


def test_nothing_goes_to_the_hub(labelling_server: Workspace) -> None:
    dataset = make_dataset(labelling_server, "for the hub")
    add_records(labelling_server, dataset, "private")
    key = control.credentials(labelling_server).api_key
    body = b'{"name": "me/it", "subset": "default", "split": "train", "private": false, "token": "hf_x"}'
    headers = {"X_Argilla_Api_Key": key, "Content_Type": "application/json"}
    answer = fetch(labelling_server, f"/api/v1/datasets/{dataset}/export", body, **headers)
    assert answer.status == 422
    assert "exchanges nothing with the Hugging Face Hub" in answer.text


def test_the_logs_hold_no_secrets_and_no_records(labelling_server: Workspace) -> None:
    known, home = control.credentials(labelling_server), labelling_server.root / "argilla"
    as_owner = {"X_Argilla_Api_Key": known.api_key, "Content_Type": "application/json"}
    assert sign_in(labelling_server).status == 201
    assert sign_in(labelling_server, "wrong-password").status == 401
    user = {"first_name": "ann", "username": "ann", "password": "ann's password", "role": "annotator"}
    call(labelling_server, "POST", "users", user)
    weak = json.dumps(user | {"username": "bob", "password": "weak-1"}).encode()
    assert fetch(labelling_server, "/api/v1/users", weak, **as_owner).status == 422
    dataset = make_dataset(labelling_server, "too many at once")
    many = json.dumps({"items": [{"fields": {"text": "what a model said " * 1000}}] * 501}).encode()
    refused = fetch(labelling_server, f"/api/v1/datasets/{dataset}/records/bulk", many, method="POST", **as_owner)
    assert refused.status == 422

    logs = {path.name: path.read_text() for path in home.glob("*.log*")}
    assert set(logs) == {"server.log", "start.log"}
    secrets = [known.password, known.api_key, (home / "secret_key").read_text()]
    for secret in (*secrets, "wrong-password", "ann's password", "weak-1", "what a model said"):
        assert not [name for name, text in logs.items() if secret in text]
    assert sum(map(len, logs.values())) < 20_000
