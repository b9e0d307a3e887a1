"""Every filter, order and query that Argilla's page and its SDK can send, against a plain model of the same records."""

import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from feedback.argilla.server import control
from feedback.workspace import Workspace
from tests.feedback.argilla.search_model import (
    METADATA,
    RECORD,
    STATUS,
    answered,
    between,
    every_filter,
    in_order,
    key,
    passes,
    some_order,
    some_record,
    some_text,
    suggested,
    terms,
    values_of,
    words_of,
)
from tests.feedback.argilla.searching import Given, Project, make_project
from tests.feedback.argilla.serving import call


@pytest.fixture(scope="module")
def project(labelling_server: Workspace) -> Project:
    rng = random.Random(1)
    return make_project(labelling_server, [some_record(rng, number) for number in range(120)], overlap=2)


@pytest.mark.parametrize(("seed", "person"), [(0, None), (1, "ann")])
def test_every_filter_alone(project: Project, seed: int, person: str | None) -> None:
    records = list(project.records.values())
    for wanted in every_filter(random.Random(seed), records):
        expected = [record.name for record in records if passes(record, wanted, person)]
        assert sorted(project.search(filters=[wanted], person=person)) == sorted(expected), wanted


@pytest.mark.parametrize("seed", range(60))
def test_text_filters_and_orders_together(project: Project, seed: int) -> None:
    rng = random.Random(seed)
    records = list(project.records.values())
    person = rng.choice([None, "ann", "bob"])
    query, meaning = some_text(rng)
    field = rng.choice([None, None, "prompt", "one", "two", "more"])
    text = query if rng.random() < 0.6 else None
    filters = rng.sample(every_filter(rng, records), rng.choice([0, 1, 1, 2, 3]))
    sort = [some_order(rng) for _ in range(rng.choice([0, 1, 1, 2]))]
    expected = {
        each.name
        for each in records
        if all(passes(each, wanted, person) for wanted in filters) and (text is None or meaning(words_of(each, field)))
    }
    found = project.search(text, filters, sort, person, field if text else None)
    assert set(found) == expected, (text, field, filters)
    keys = [[key(project.records[name], order, person) for order in sort] for name in found]
    assert keys == in_order(keys, sort), sort


def test_numbers_may_come_as_text_and_dates_in_every_form(project: Project) -> None:
    records = project.records.values()
    length, quality = METADATA["length"], answered("quality")
    for number in (3, 3.0, "3", "3.0"):
        assert project.search(filters=[terms(length, number)]) == project.search(filters=[terms(length, 3)])
        assert project.search(filters=[terms(quality, number)]) == project.search(filters=[terms(quality, 3)])
        assert project.search(filters=[between(length, low=number)]) == project.search(filters=[between(length, low=3)])
    assert 0 < len(project.search(filters=[terms(length, 3)])) < len(records)
    moment = datetime.fromisoformat(sorted(each.inserted_at for each in records)[60])
    first = sorted(each.name for each in records if datetime.fromisoformat(each.inserted_at) <= moment)
    for written in (moment.isoformat(), f"{moment.isoformat()}Z", f"{moment.isoformat()}+00:00", str(moment)):
        assert sorted(project.search(filters=[between(RECORD["inserted_at"], high=written)])) == first
    assert len(project.search(filters=[between(RECORD["inserted_at"], high=f"{moment.date()}")])) == len(records)
    assert project.search(filters=[between(RECORD["inserted_at"], high=0)]) == []


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (between(RECORD["inserted_at"], low="yesterday"), "no date"),
        (between(RECORD["updated_at"], high=1e300), "no date"),
        (terms(RECORD["inserted_at"], "1; DROP TABLE records"), "no date"),
        (terms({"entity": "response"}, "submitted"), "name a question"),
        (between({"entity": "response"}, low=1), "name a question"),
        (terms({"entity": "metadata", "metadata_property": "unknown"}, "a"), "unknown"),
        (terms(suggested("unknown"), "a"), "unknown"),
        (terms(answered("unknown"), "a"), "unknown"),
    ],
)
def test_a_filter_without_sense_is_refused(project: Project, wanted: dict[str, Any], reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        project.search(filters=[wanted])


# The SDK's own use of what pydantic and others will drop.
@pytest.mark.filterwarnings("ignore")
def test_the_sdk_finds_the_same(project: Project) -> None:
    import argilla

    known = control.credentials(project.workspace)
    client = argilla.Argilla(api_url=control.status(project.workspace).url, api_key=known.api_key)
    (dataset,) = [each for each in client.datasets if str(each.id) == project.id]
    record = project.records["r-007"]
    moment = datetime.fromisoformat(record.inserted_at)
    for condition, wanted in [
        (("status", "==", "completed"), terms(RECORD["status"], "completed")),
        (("id", "in", ["r-001", "r-007"]), terms(RECORD["external_id"], "r-001", "r-007")),
        (("_server_id", "==", UUID(record.id)), terms(RECORD["id"], record.id)),
        (("inserted_at", "<=", moment), between(RECORD["inserted_at"], None, record.inserted_at)),
        (("metadata.source", "in", ["web"]), terms(METADATA["source"], "web")),
        (("metadata.length", "==", 3), terms(METADATA["length"], 3)),
        (("metadata.margin", ">=", 0.3), between(METADATA["margin"], 0.3)),
        (("choice.suggestion", "==", "tie"), terms(suggested("choice"), "tie")),
        (("quality", ">=", 3), between(suggested("quality"), 3)),
        (("quality.score", "<=", 0.25), between(suggested("quality", "score"), None, 0.25)),
        (("tags.agent", "==", "gpt-7"), terms(suggested("tags", "agent"), "gpt-7")),
        (("tags.type", "==", "human"), terms(suggested("tags", "type"), "human")),
        (("quality.response", "==", 4), terms(answered("quality"), 4)),
        (("response.status", "in", ["submitted", "pending"]), terms(STATUS, "submitted", "pending")),
    ]:
        expected = {each.name for each in project.records.values() if passes(each, wanted, None)}
        found = dataset.records(argilla.Query(query="red | -red", filter=condition))
        assert {each.id for each in found} == expected, condition
        assert 0 < len(expected) < len(project.records)
    similar = dataset.records(argilla.Query(similar=argilla.Similar("meaning", [1.0, 0.0, 0.0])), limit=5)
    assert [each.id for each, _ in similar] == project.search(vector={"value": [1.0, 0.0, 0.0]}, limit=5)


def test_values_that_look_like_sql_are_values(project: Project) -> None:
    records = project.records.values()
    quoted = """it's "quoted", 100%"""
    expected = sorted(each.name for each in records if each.metadata.get("source") == quoted)
    assert sorted(project.search(filters=[terms(METADATA["source"], quoted)])) == expected
    scopes = [METADATA["source"], METADATA["length"], RECORD["id"], RECORD["status"], STATUS]
    for scope in (*scopes, answered("quality"), suggested("choice", "agent")):
        strange = ["' OR 1=1 --", '"', "\0", "", "nan", "inf", "1e999", "%", "null", "\u0301"]
        assert project.search(filters=[terms(scope, *strange)]) == [], scope


def test_an_infinite_number_spoils_no_search(labelling_server: Workspace) -> None:
    records = [Given("endless", {"one": "-"}, {"margin": float("inf")}), Given("usual", {"one": "-"}, {"margin": 1.0})]
    project = make_project(labelling_server, records)
    assert project.search(filters=[between(METADATA["margin"], low=0)]) == ["usual"]
    assert project.search(sort=[{"scope": METADATA["margin"], "order": "asc"}]) == ["usual", "endless"]


def test_what_no_filter_can_find(project: Project) -> None:
    """Rankings and spans are no values to filter by; neither is what a record does not have."""
    assert project.search(filters=[terms(answered("rank"), "one")]) == []
    assert project.search(filters=[terms(suggested("parts"), "made-up")]) == []
    assert project.search(filters=[between(suggested("rank", "score"), low=0)]) == []


def test_pages_follow_each_other(project: Project) -> None:
    everything = project.search(person="ann")
    pages = [project.ask(person="ann", offset=offset, limit=25) for offset in range(0, 150, 25)]
    assert [item["record"]["external_id"] for page in pages for item in page["items"]] == everything
    assert {page["total"] for page in pages} == {120}
    # Without an order a rater goes round from a place of their own, always the same; the owner sees them as they came.
    by_id = sorted(project.records.values(), key=lambda each: each.id)
    for name, person in project.people.items():
        own = person.call("GET", "me")["id"]
        rounds = sorted(by_id, key=lambda each: each.id < own)
        assert project.search(person=name) == [each.name for each in rounds]
    assert project.search() == sorted(project.records)


def test_similarity(project: Project) -> None:
    def cosine(a: Sequence[float], b: Sequence[float]) -> float:
        def length(v: Sequence[float]) -> float:
            return sum(x * x for x in v) ** 0.5

        return sum(x * y for x, y in zip(a, b, strict=True)) / (length(a) * length(b))

    with_vector = {name: each for name, each in project.records.items() if each.vector}
    scores = {name: (1 + cosine(each.vector or [], [0.2, -0.4, 1])) / 2 for name, each in with_vector.items()}
    for order, sign in (("most_similar", -1), ("least_similar", 1)):
        found = project.ask(vector={"value": [0.2, -0.4, 1], "order": order}, limit=30)
        expected = sorted(scores, key=lambda name: sign * scores[name])[:30]
        assert [item["record"]["external_id"] for item in found["items"]] == expected
        shown = [item["query_score"] for item in found["items"]]
        assert shown == pytest.approx([scores[name] if sign < 0 else 1 - scores[name] for name in expected], abs=1e-6)
    # By another record, which is not found itself; with a filter, a text and for a rater.
    start = next(iter(with_vector.values()))
    near = project.search(vector={"record_id": start.id})
    assert sorted(near) == sorted(set(with_vector) - {start.name})
    by = {name: cosine(each.vector or [], start.vector or []) for name, each in with_vector.items()}
    assert near == sorted(near, key=lambda name: -by[name])
    wanted = [terms(METADATA["source"], "web")]
    some = project.search("red", wanted, vector={"record_id": start.id}, person="ann")
    narrowed = set(project.search("red", wanted, person="ann"))
    assert some == [name for name in near if name in narrowed]
    assert len(some) > 1


@pytest.mark.parametrize("value", [[1.0], [0.0, 1.0, 2.0, 3.0], [1e999, 0, 0]])
def test_a_vector_that_does_not_fit_is_refused(project: Project, value: list[float]) -> None:
    with pytest.raises(AssertionError, match=r"3 finite numbers|finite"):
        project.search(vector={"value": value})


def test_what_the_page_shows_beside_the_records(project: Project) -> None:
    records = project.records.values()
    server, dataset = project.workspace, project.id
    listing = call(server, "GET", f"me/datasets/{dataset}/metadata-properties")["items"]
    properties = {each["name"]: each["id"] for each in listing}
    for name in ("length", "margin"):
        numbers = [each.metadata[name] for each in records if name in each.metadata]
        bounds = call(server, "GET", f"metadata-properties/{properties[name]}/metrics")
        assert bounds == {"type": "integer" if name == "length" else "float", "min": min(numbers), "max": max(numbers)}
    metrics = call(server, "GET", f"metadata-properties/{properties['source']}/metrics")
    sources = [value for each in records for value in values_of(each, METADATA["source"], None)]
    assert metrics["total"] == len(sources)
    assert {each["term"]: each["count"] for each in metrics["values"]} == {s: sources.count(s) for s in sources}
    counts = [each["count"] for each in metrics["values"]]
    assert counts == sorted(counts, reverse=True)

    agents = call(server, "GET", f"datasets/{dataset}/records/search/suggestions/options")["items"]
    for each in agents:
        name = each["question"]["name"]
        suggestions = [record.suggestions.get(name, {}) for record in records]
        assert set(each["agents"]) == {suggestion["agent"] for suggestion in suggestions if "agent" in suggestion}

    completed = sum(passes(each, terms(RECORD["status"], "completed"), None) for each in records)
    progress = call(server, "GET", f"datasets/{dataset}/progress")
    assert (progress["total"], progress["completed"], progress["pending"]) == (120, completed, 120 - completed)
    for name, person in project.people.items():
        given = [each.answers[name]["status"] for each in records if name in each.answers]
        counts = {status: given.count(status) for status in ("submitted", "draft", "discarded")}
        shown = person.call("GET", f"me/datasets/{dataset}/metrics")["responses"]
        assert shown == {"total": 120, **counts, "pending": 120 - len(given)}
