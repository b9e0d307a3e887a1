"""Plain HTTP to a labelling server, as its API and as a page in a browser see it."""

import json
import random
import socket
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from feedback.argilla.server import control
from feedback.workspace import Workspace


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    text: str


def fetch(
    workspace: Workspace, path: str, data: bytes | None = None, method: str | None = None, **headers: str
) -> Answer:
    """What the server answers to somebody who has not signed in, whatever its status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(f"{control.status(workspace).url}{path}", data, named, method=method)
    try:
        with urlopen(request, timeout=60) as answer:
            return Answer(answer.status, answer.headers, answer.read().decode())
    except HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read().decode())


def call(workspace: Workspace, method: str, path: str, body: Any = None) -> Any:
    """What the API answers to the owner, from JSON."""
    key = control.credentials(workspace).api_key
    data = None if body is None else json.dumps(body).encode()
    answer = fetch(workspace, f"/api/v1/{path}", data, method, X_Argilla_Api_Key=key, Content_Type="application/json")
    assert answer.status < 300, answer.text
    return json.loads(answer.text or "null")


def sign_in(workspace: Workspace, password: str | None = None) -> Answer:
    """Sign in as the sign-in page does."""
    known = control.credentials(workspace)
    form = f"username={known.username}&password={password or known.password}".encode()
    return fetch(workspace, "/api/v1/token", form, "POST", Content_Type="application/x-www-form-urlencoded")


def make_dataset(workspace: Workspace, name: str, publish: bool = True, **settings: Any) -> str:
    """A dataset with a text and a yes-or-no question; its id."""
    (place,) = (each["id"] for each in call(workspace, "GET", "me/workspaces")["items"] if each["name"] == "veritune")
    dataset = call(workspace, "POST", "datasets", {"name": name, "workspace_id": place, **settings})["id"]
    text = {"name": "text", "title": "Text", "required": True, "settings": {"type": "text"}}
    options = [{"value": value, "text": value} for value in ("yes", "no")]
    good = {"name": "good", "title": "Good?", "required": True}
    call(workspace, "POST", f"datasets/{dataset}/fields", text)
    call(
        workspace,
        "POST",
        f"datasets/{dataset}/questions",
        good | {"settings": {"type": "label_selection", "options": options}},
    )
    if publish:
        call(workspace, "PUT", f"datasets/{dataset}/publish")
    return str(dataset)


def add_records(workspace: Workspace, dataset: str, *texts: str) -> list[str]:
    items = [{"fields": {"text": text}} for text in texts]
    added = call(workspace, "POST", f"datasets/{dataset}/records/bulk", {"items": items})["items"]
    return [record["id"] for record in added]


def answer_yes(workspace: Workspace, record: str) -> None:
    response = {"record_id": record, "status": "submitted", "values": {"good": {"value": "yes"}}}
    (outcome,) = call(workspace, "POST", "me/responses/bulk", {"items": [response]})["items"]
    assert outcome["error"] is None


def free_port() -> int:
    """A port that nobody has, and that no connection is given by chance before it is listened on."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.SystemRandom().randrange(10_000, 32_000)))
            return int(probe.getsockname()[1])
