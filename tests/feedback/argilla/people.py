"""Raters who label over Argilla's own interface, each with an account of their own."""

import uuid
from dataclasses import dataclass
from typing import Any

import httpx

from feedback.argilla.connection import connect
from feedback.argilla.project import find_projects
from feedback.argilla.raters import RaterKind, add_rater
from feedback.argilla.records import listed
from feedback.argilla.server import control
from feedback.database import Database
from feedback.files import write_atomic
from feedback.schema import Candidate, Message, Response
from feedback.workspace import SETTINGS_FILE, Workspace


def beside(server: Workspace, workspace: Workspace, /, **argilla: Any) -> Workspace:
    """A workspace with a database of its own whose veritune.toml names another's server."""
    url, key = control.status(server).url, control.credentials(server).api_key
    lines = [f"{name} = {value!r}" for name, value in ({"url": url, "api_key": key} | argilla).items()]
    write_atomic(workspace.root / SETTINGS_FILE, "\n".join(["[argilla]", *lines]) + "\n")
    return Workspace(workspace.root)


def candidate(number: int, responses: int = 2, **metadata: Any) -> Candidate:
    """A question with distinct answers, each of a model with a telling name."""
    return Candidate(
        prompt=(Message(role="user", content=f"question {number}?"),),
        responses=tuple(Response(text=f"answer {i} to {number}", model=f"secret-model-{i}") for i in range(responses)),
        metadata=metadata,
    )


def store(workspace: Workspace, *candidates: Candidate) -> str:
    """Put candidates into a new collection; the name of it."""
    collection = f"c-{uuid.uuid4().hex[:8]}"
    with Database(workspace.database) as database:
        database.add(collection, candidates)
    return collection


def records(workspace: Workspace, collection: str) -> dict[str, dict[str, Any]]:
    """What Argilla holds of a collection, by the candidates' ids."""
    with connect(workspace) as argilla:
        projects = find_projects(argilla, collection)
        return {record["external_id"]: record for project in projects for record in listed(argilla, project.id)}


@dataclass(frozen=True)
class Person:
    """Somebody who signed in."""

    name: str
    url: str
    key: str

    def call(self, method: str, path: str, body: Any = None, **parameters: Any) -> Any:
        headers = {"X-Argilla-Api-Key": self.key}
        url = f"{self.url}/api/v1/{path}"
        answer = httpx.request(method, url, json=body, params=parameters, headers=headers, timeout=60)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def answer(self, record: dict[str, Any], status: str = "submitted", **values: Any) -> dict[str, Any]:
        """Answer a record, or change one's answer; the response as Argilla keeps it."""
        given = {question: {"value": value} for question, value in values.items()}
        body = {"record_id": record["id"], "status": status, "values": given}
        (outcome,) = self.call("POST", "me/responses/bulk", {"items": [body]})["items"]
        assert outcome["error"] is None, outcome
        return dict(outcome["item"])


def sign_in(workspace: Workspace, name: str, kind: RaterKind = "human") -> Person:
    """Make an account with a name that begins like this, and sign in with it."""
    username = add_rater(workspace, f"{name}-{uuid.uuid4().hex[:6]}", kind).username
    with connect(workspace) as argilla:
        (key,) = (u["api_key"] for u in argilla.call("GET", "users")["items"] if u["username"] == username)
        return Person(username, argilla.address, key)
