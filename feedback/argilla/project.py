"""A labelling project: one Argilla dataset for the candidates of a collection with the same number of responses."""

import math
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from feedback.argilla.connection import Connection, RefusedError
from feedback.argilla.layout import MOST_RESPONSES, field_of, fields, guidelines, marks, questions
from feedback.errors import UserError
from feedback.schema import Candidate

# Argilla keeps this with the dataset, so that a project is known by what it is, whatever it is renamed to.
MARKER, LAYOUT = "veritune", 1
SIDES = "sides"
# The title of the metadata property that raters' records are ordered by, where a project has it (order.py).
UNCERTAINTY = "Uncertainty of the judges"
# Nobody filters by a longer text.
LONGEST_TERM = 200


@dataclass(frozen=True)
class Plan:
    """What a project is made of, as Argilla's interface takes it.

    Args:
        marker: the collection, the number of responses, and the version of the layout.
        properties: name, title and kind (terms, integer, float) of each metadata property.
    """

    name: str
    guidelines: str | None
    overlap: int
    marker: dict[str, Any]
    fields: list[dict[str, Any]]
    questions: list[dict[str, Any]]
    properties: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Project:
    """An Argilla dataset of ours.

    Args:
        properties: name and kind (terms, integer, float) of each metadata property, by the candidates' name for it.
        activity: when somebody last answered, as Argilla writes it.
    """

    id: str
    name: str
    responses: int
    overlap: int
    guidelines: str | None
    properties: dict[str, tuple[str, str]]
    activity: str


def project_name(collection: str, responses: int) -> str:
    """What a new project is called in Argilla."""
    suffix = {1: "-single", 2: ""}.get(responses, f"-rank-{responses}")
    return f"{collection}{suffix}"


def find_projects(argilla: Connection, collection: str) -> list[Project]:
    """The projects of a collection, by their number of responses.

    Raises:
        UserError: one was made by another version of veritune.
    """
    return [_project(argilla, d) for d in marked_datasets(argilla, collection) if d["status"] == "ready"]


def prepare_project(
    argilla: Connection,
    collection: str,
    responses: int,
    overlap: int,
    kinds: dict[str, str],
    say: Callable[[str], None],
) -> Project:
    """The project for candidates with this many responses: made if it is not there, else brought up to date.

    Args:
        overlap: how many people are to label each record.
        kinds: the candidates' metadata, as `metadata_kinds` tells it.

    Raises:
        UserError: the name is taken, or Argilla can't hold such a project.
    """
    if responses > MOST_RESPONSES:
        raise UserError(f"collection {collection!r}: {responses} answers to one prompt; Argilla ranks {MOST_RESPONSES}")
    for dataset in marked_datasets(argilla, collection):
        if dataset["metadata"][MARKER]["responses"] == responses and dataset["status"] == "ready":
            return _update(argilla, _project(argilla, dataset), overlap, kinds, say)
    plan = Plan(
        name=project_name(collection, responses),
        guidelines=guidelines(responses),
        overlap=overlap,
        marker={"collection": collection, "responses": responses, "layout": LAYOUT},
        fields=fields(responses),
        questions=questions(responses),
        properties=[(SIDES, "Order of the answers", "terms"), *_new_properties({}, kinds)],
    )
    return make_project(argilla, plan)


def make_project(argilla: Connection, plan: Plan) -> Project:
    """Make a project in Argilla.

    Raises:
        UserError: the name is taken by something else.
    """
    for dataset in marked_datasets(argilla, plan.marker["collection"]):
        if dataset["status"] != "ready" and dataset["metadata"][MARKER] == plan.marker:
            # Its making was interrupted; nobody has seen it.
            argilla.call("DELETE", f"datasets/{dataset['id']}")
    body = {
        "name": plan.name,
        "guidelines": plan.guidelines,
        "distribution": {"strategy": "overlap", "min_submitted": plan.overlap},
        "metadata": {MARKER: plan.marker},
        "workspace_id": argilla.workspace_id,
    }
    try:
        dataset = argilla.call("POST", "datasets", body)
    except RefusedError as refused:
        if refused.status != 409:
            raise
        raise UserError(
            f"dataset {plan.name!r} in Argilla's workspace {argilla.workspace_name!r}: it was not made for collection "
            f"{plan.marker['collection']!r}; rename it, or name another argilla.workspace in veritune.toml"
        ) from None
    place = f"datasets/{dataset['id']}"
    for field in plan.fields:
        argilla.call("POST", f"{place}/fields", field)
    for question in plan.questions:
        argilla.call("POST", f"{place}/questions", question)
    for name, title, kind in plan.properties:
        _add_property(argilla, dataset["id"], name, title, kind)
    return _project(argilla, argilla.call("PUT", f"{place}/publish"))


def marked_datasets(argilla: Connection, collection: str | None = None) -> list[dict[str, Any]]:
    """Argilla's datasets that are projects of ours, or of one collection, by their number of responses.

    Raises:
        UserError: one was made by another version of veritune.
    """
    found = []
    for dataset in argilla.call("GET", "me/datasets", workspace_id=argilla.workspace_id)["items"]:
        marker = (dataset.get("metadata") or {}).get(MARKER)
        if isinstance(marker, dict) and (collection is None or marker.get("collection") == collection):
            if marker.get("layout") != LAYOUT:
                raise UserError(
                    f"project {dataset['name']!r} in Argilla was made by another version of veritune; upgrade this one"
                )
            found.append(dataset)
    return sorted(found, key=lambda dataset: (dataset["metadata"][MARKER]["responses"], dataset["name"]))


def record_of(candidate: Candidate, project: Project) -> dict[str, Any]:
    """A candidate as Argilla takes it: answers without their models' names, in the order of `sides`."""
    order = sides(candidate)
    # Argilla refuses an empty turn, and a prompt without any.
    turns = [{"role": turn.role, "content": turn.content} for turn in candidate.prompt if turn.content]
    shown: dict[str, Any] = {"prompt": turns or [{"role": "user", "content": " "}]}
    if candidate.context is not None:
        shown["context"] = candidate.context
    shown |= _answers(candidate, order)
    metadata: dict[str, Any] = {SIDES: ",".join(map(str, order))}
    for key, (name, kind) in project.properties.items():
        value = _as_kind(candidate.metadata.get(key), kind)
        if value is not None:
            metadata[name] = value
    return {"external_id": candidate.id, "fields": shown, "metadata": metadata}


def sides(candidate: Candidate) -> tuple[int, ...]:
    """Which response stands at each position: random for each candidate, and the same whenever it is asked."""
    order = list(range(len(candidate.responses)))
    random.Random(candidate.id).shuffle(order)
    return tuple(order)


def sides_of(record: dict[str, Any], candidate: Candidate) -> tuple[int, ...]:
    """Which response stands at each position of a record in Argilla.

    Raises:
        UserError: somebody changed the answers there, or the note of their order.
    """
    noted = str((record["metadata"] or {}).get(SIDES))
    order = tuple(int(index) if index.isdecimal() else -1 for index in noted.split(","))
    complete = sorted(order) == list(range(len(candidate.responses)))
    if not complete or not record["fields"].items() >= _answers(candidate, order).items():
        raise UserError(
            f"record {candidate.id} was changed in Argilla, so nobody can tell which answer stood where; "
            "`veritune feedback push --again` puts it right"
        )
    return order


def metadata_kinds(candidates: Iterable[Candidate]) -> dict[str, str]:
    """Kind of each metadata key: terms, integer or float; keys without a value that can be filtered by are left out."""
    kinds: dict[str, str] = {}
    for candidate in candidates:
        for key, value in candidate.metadata.items():
            kind = _kind(value)
            if kind is not None and key.strip() and len(key) <= LONGEST_TERM:
                known = kinds.setdefault(key, kind)
                if known != kind:
                    kinds[key] = "float" if {known, kind} == {"integer", "float"} else "terms"
    return kinds


def _answers(candidate: Candidate, order: tuple[int, ...]) -> dict[str, str]:
    """The answers by their fields; the page would leave the field of an empty one out."""
    return {
        field_of(mark): candidate.responses[index].text or " "
        for mark, index in zip(marks(len(order)), order, strict=True)
    }


def _update(
    argilla: Connection, project: Project, overlap: int, kinds: dict[str, str], say: Callable[[str], None]
) -> Project:
    for key, kind in kinds.items():
        known = project.properties.get(key, ("", kind))[1]
        if known != kind and (known, kind) not in (("terms", "integer"), ("terms", "float"), ("float", "integer")):
            say(f"metadata {key!r} is {known} in project {project.name!r}: other values can't be filtered by there")
    if (project.guidelines, project.overlap) != (guidelines(project.responses), overlap):
        wanted = {
            "guidelines": guidelines(project.responses),
            "distribution": {"strategy": "overlap", "min_submitted": overlap},
        }
        argilla.call("PATCH", f"datasets/{project.id}", wanted)
    for name, title, kind in _new_properties(project.properties, kinds):
        _add_property(argilla, project.id, name, title, kind)
    return _project(argilla, argilla.call("GET", f"datasets/{project.id}"))


def _new_properties(known: dict[str, tuple[str, str]], kinds: dict[str, str]) -> list[tuple[str, str, str]]:
    """Name, title and kind of the metadata properties that are not known yet; Argilla takes few characters in names."""
    taken = {SIDES, *(name for name, _ in known.values())}
    new = []
    for key, kind in kinds.items():
        if key not in known:
            name = plain = re.sub(r"[^a-z0-9_-]+", "_", key.lower()).strip("_-") or "metadata"
            number = 1
            while name in taken:
                number += 1
                name = f"{plain}_{number}"
            taken.add(name)
            new.append((name, key, kind))
    return new


def _add_property(argilla: Connection, dataset_id: str, name: str, title: str, kind: str) -> None:
    # Hidden from raters: what they know of an answer's origin would colour their judgement. By the uncertainty, which
    # takes no side, they may sort.
    visible = title == UNCERTAINTY
    body = {"name": name, "title": title, "settings": {"type": kind}, "visible_for_annotators": visible}
    argilla.call("POST", f"datasets/{dataset_id}/metadata-properties", body)


def _project(argilla: Connection, dataset: dict[str, Any]) -> Project:
    listed = argilla.call("GET", f"me/datasets/{dataset['id']}/metadata-properties")["items"]
    return Project(
        id=dataset["id"],
        name=dataset["name"],
        responses=dataset["metadata"][MARKER]["responses"],
        overlap=dataset["distribution"]["min_submitted"],
        guidelines=dataset["guidelines"],
        properties={p["title"]: (p["name"], p["settings"]["type"]) for p in listed if p["name"] != SIDES},
        activity=dataset["last_activity_at"],
    )


def _kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return "terms"
    if isinstance(value, int):
        return "integer" if -(2**63) <= value < 2**63 else None
    if isinstance(value, float):
        return "float" if math.isfinite(value) else None
    return "terms" if isinstance(value, str) and 0 < len(value) <= LONGEST_TERM else None


def _as_kind(value: Any, kind: str) -> str | int | float | None:
    """The value as Argilla takes it for a property of this kind, or nothing where it does not fit."""
    own = _kind(value)
    if own is None:
        return None
    if kind == "terms":
        return str(value).lower() if isinstance(value, bool) else str(value)
    if kind == "float":
        return float(value) if own in ("integer", "float") else None
    return value if own == "integer" else None
