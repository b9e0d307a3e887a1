"""A dataset with every kind of field and question, and a model of its records to hold the server's answers against."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from feedback.workspace import Workspace
from tests.feedback.argilla.people import Person, sign_in
from tests.feedback.argilla.serving import call

LABELS, TAGS = ["first", "second", "tie"], ["long", "short", "wrong"]
QUESTIONS = {
    "choice": {"type": "label_selection", "options": [{"value": each, "text": each} for each in LABELS]},
    "tags": {"type": "multi_label_selection", "options": [{"value": each, "text": each} for each in TAGS]},
    "quality": {"type": "rating", "options": [{"value": each} for each in range(1, 6)]},
    "rank": {"type": "ranking", "options": [{"value": each, "text": each} for each in ("one", "two")]},
    "parts": {"type": "span", "field": "one", "options": [{"value": "made-up", "text": "Made up"}]},
    "why": {"type": "text"},
}
FIELDS = {"prompt": "chat", "one": "text", "two": "text", "picture": "image", "more": "custom"}


@dataclass
class Given:
    """A record as the model knows it; answers by the name of who gave them."""

    name: str
    fields: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    suggestions: dict[str, dict[str, Any]] = field(default_factory=dict)
    vector: list[float] | None = None
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    id: str = ""
    inserted_at: str = ""
    updated_at: str = ""


@dataclass
class Project:
    """A dataset on the server, and the people who look at it."""

    workspace: Workspace
    id: str
    people: dict[str, Person]
    records: dict[str, Given]
    questions: dict[str, str]

    def search(
        self,
        text: str | None = None,
        filters: Sequence[dict[str, Any]] = (),
        sort: Sequence[dict[str, Any]] = (),
        person: str | None = None,
        field: str | None = None,
        **more: Any,
    ) -> list[str]:
        """Names of the records found, as the owner sees them or as a rater does."""
        found = self.ask(text, filters, sort, person, field, **more)
        assert found["total"] == len(found["items"])
        return [item["record"]["external_id"] for item in found["items"]]

    def ask(
        self,
        text: str | None = None,
        filters: Sequence[dict[str, Any]] = (),
        sort: Sequence[dict[str, Any]] = (),
        person: str | None = None,
        field: str | None = None,
        vector: dict[str, Any] | None = None,
        offset: int = 0,
        limit: int = 1000,
    ) -> Any:
        body: dict[str, Any] = {"query": {}}
        if text is not None:
            body["query"]["text"] = {"q": text, "field": field}
        if vector is not None:
            body["query"]["vector"] = {"name": "meaning", **vector}
        if filters:
            body["filters"] = {"and": list(filters)}
        if sort:
            body["sort"] = list(sort)
        path = f"datasets/{self.id}/records/search"
        if person is None:
            return call(self.workspace, "POST", f"{path}?offset={offset}&limit={limit}", body)
        return self.people[person].call("POST", f"me/{path}", body, offset=offset, limit=limit)


def make_project(workspace: Workspace, records: Sequence[Given], overlap: int = 1) -> Project:
    (place,) = (each["id"] for each in call(workspace, "GET", "me/workspaces")["items"] if each["name"] == "veritune")
    settings = {"distribution": {"strategy": "overlap", "min_submitted": overlap}}
    dataset = call(workspace, "POST", "datasets", {"name": uuid.uuid4().hex, "workspace_id": place, **settings})["id"]

    def add(what: str, name: str, settings: dict[str, Any], **more: Any) -> str:
        body = {"name": name, "title": name, "settings": settings} | more
        return str(call(workspace, "POST", f"datasets/{dataset}/{what}", body)["id"])

    for name, kind in FIELDS.items():
        settings = {"type": kind} | ({"template": "-"} if kind == "custom" else {})
        add("fields", name, settings, required=name == "one")
    questions = {name: add("questions", name, each, required=name == "choice") for name, each in QUESTIONS.items()}
    for name, kind in (("source", "terms"), ("length", "integer"), ("margin", "float")):
        add("metadata-properties", name, {"type": kind}, visible_for_annotators=True)
    call(workspace, "POST", f"datasets/{dataset}/vectors-settings", {"name": "meaning", "title": "-", "dimensions": 3})
    call(workspace, "PUT", f"datasets/{dataset}/publish")

    people = {name: sign_in(workspace, name) for name in ("ann", "bob")}
    accounts = {name: person.call("GET", "me")["id"] for name, person in people.items()}
    project = Project(workspace, dataset, people, {each.name: each for each in records}, questions)
    items = [
        {
            "external_id": each.name,
            "fields": each.fields,
            "metadata": each.metadata,
            "suggestions": [{"question_id": questions[name], **more} for name, more in each.suggestions.items()],
            "responses": [_response(accounts[name], **answer) for name, answer in each.answers.items()],
            **({"vectors": {"meaning": each.vector}} if each.vector else {}),
        }
        for each in records
    ]
    call(workspace, "PUT", f"datasets/{dataset}/records/bulk", {"items": items})
    for item in project.ask()["items"]:
        made = item["record"]
        known = project.records[made["external_id"]]
        known.id, known.inserted_at, known.updated_at = made["id"], made["inserted_at"], made["updated_at"]
    return project


def _response(user: str, status: str, **values: Any) -> dict[str, Any]:
    given = {question: {"value": value} for question, value in values.items()}
    return {"user_id": user, "status": status, "values": given}
