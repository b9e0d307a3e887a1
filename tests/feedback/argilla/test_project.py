"""What a labelling project is made of, in the real server, and what raters see of it."""

import json
import uuid
from collections import Counter
from itertools import permutations
from typing import Any

import pytest

from feedback.argilla import project as module
from feedback.argilla.connection import RefusedError, connect
from feedback.argilla.layout import guidelines, marks, questions
from feedback.argilla.project import MARKER, find_projects, metadata_kinds, sides
from feedback.argilla.push import push
from feedback.database import Database
from feedback.errors import UserError
from feedback.workspace import Workspace
from tests.feedback.argilla.people import beside, candidate, records, sign_in, store


@pytest.fixture
def workspace(workspace: Workspace, labelling_server: Workspace) -> Workspace:
    return beside(labelling_server, workspace)


def quiet(line: str) -> None:
    pass


def found_by(workspace: Workspace, collection: str, name: str, **condition: Any) -> set[str]:
    """Ids of the candidates that an owner's filter on one metadata property finds."""
    scope = {"entity": "metadata", "metadata_property": name}
    kind = {"type": "terms"} if "values" in condition else {"type": "range"}
    with connect(workspace) as argilla:
        (project,) = find_projects(argilla, collection)
        query = {"filters": {"and": [{"scope": scope} | kind | condition]}}
        page = argilla.call("POST", f"datasets/{project.id}/records/search", query, limit=100)
        return {item["record"]["external_id"] for item in page["items"]}


def test_sides_are_random_and_lasting() -> None:
    asked = [candidate(n) for n in range(400)]
    assert [sides(c) for c in asked] == [sides(candidate(n)) for n in range(400)]
    # 400 throws of a fair coin: 140 to 260 is six standard deviations to either side.
    assert 140 < Counter(sides(c) for c in asked)[1, 0] < 260
    assert {sides(candidate(n, 3)) for n in range(200)} == set(permutations(range(3)))


def test_raters_see_no_model_and_no_metadata(workspace: Workspace) -> None:
    asked = candidate(0, topic="made by secret-model-1", seed=3)
    collection = store(workspace, asked)
    push(workspace, collection, quiet)
    ann = sign_in(workspace, "ann")
    (dataset,) = [d for d in ann.call("GET", "me/datasets")["items"] if d["name"] == collection]
    page = ann.call("POST", f"me/datasets/{dataset['id']}/records/search", {}, limit=10)
    seen = json.dumps([page, dataset, ann.call("GET", f"datasets/{dataset['id']}/questions")])
    assert page["items"][0]["record"]["fields"]["prompt"][0]["content"] == "question 0?"
    assert "secret-model" not in seen
    assert not page["items"][0]["record"]["metadata"]
    assert ann.call("GET", f"me/datasets/{dataset['id']}/metadata-properties")["items"] == []


def test_owners_filter_by_what_is_hidden(workspace: Workspace) -> None:
    odd = {"A b": "x", "a_b": "y", "sides": "z", "n": 1, "score": 0.5, "flag": True, "empty": "", "nested": {"a": 1}}
    first, second = candidate(0, **odd), candidate(1, n=2, score=3)
    collection = store(workspace, first, second)
    push(workspace, collection, quiet)
    with connect(workspace) as argilla:
        (project,) = find_projects(argilla, collection)
    assert project.properties == {
        "A b": ("a_b", "terms"),
        "a_b": ("a_b_2", "terms"),
        "sides": ("sides_2", "terms"),
        "n": ("n", "integer"),
        "score": ("score", "float"),
        "flag": ("flag", "terms"),
    }
    for name, value in {"a_b": "x", "a_b_2": "y", "sides_2": "z", "flag": "true"}.items():
        assert found_by(workspace, collection, name, values=[value]) == {first.id}
    assert found_by(workspace, collection, "n", ge=2) == {second.id}
    assert found_by(workspace, collection, "score", le=1) == {first.id}


def test_kinds_of_metadata_are_what_all_values_fit() -> None:
    rows = [
        {"n": 1, "x": 1, "m": 1, "big": 2**70, "nan": float("nan")},
        {"n": 2, "x": 0.5, "m": "one", "long": "y" * 201},
    ]
    assert metadata_kinds([candidate(n, **row) for n, row in enumerate(rows)]) == {
        "n": "integer",
        "x": "float",
        "m": "terms",
    }


def test_a_later_push_brings_the_project_up_to_date(workspace: Workspace, labelling_server: Workspace) -> None:
    collection = store(workspace, candidate(0, n=1))
    push(workspace, collection, quiet)
    with connect(workspace) as argilla:
        (before,) = find_projects(argilla, collection)
        argilla.call("PATCH", f"datasets/{before.id}", {"name": "a name of their own"})
    assert before.overlap == 1

    late = candidate(1, n="no number", later="yes")
    with Database(workspace.database) as database:
        database.add(collection, [late])
    workspace = beside(labelling_server, workspace, overlap=3)
    lines: list[str] = []
    assert push(workspace, collection, lines.append).sent == 1
    with connect(workspace) as argilla:
        (after,) = find_projects(argilla, collection)
    assert (after.id, after.name, after.overlap) == (before.id, "a name of their own", 3)
    assert set(after.properties) == {"n", "later"}
    assert found_by(workspace, collection, "later", values=["yes"]) == {late.id}
    assert lines == [
        "metadata 'n' is integer in project 'a name of their own': other values can't be filtered by there"
    ]


def test_a_project_whose_making_was_interrupted_is_made_anew(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    collection = store(workspace, candidate(0))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_add_property", killed)
        with pytest.raises(KeyboardInterrupt):
            push(workspace, collection, quiet)
    assert records(workspace, collection) == {}
    assert push(workspace, collection, quiet).sent == 1
    assert len(records(workspace, collection)) == 1


def test_a_dataset_of_the_same_name_that_is_not_ours_is_not_touched(workspace: Workspace) -> None:
    collection = store(workspace, candidate(0))
    with connect(workspace) as argilla:
        body = {"name": collection, "workspace_id": argilla.workspace_id}
        theirs = argilla.call("POST", "datasets", body)
        with pytest.raises(UserError, match=f"dataset '{collection}' in Argilla's workspace 'veritune'"):
            push(workspace, collection, quiet)
        assert argilla.call("GET", f"datasets/{theirs['id']}")["name"] == collection


def test_a_project_of_another_version_is_not_guessed_at(workspace: Workspace, labelling_server: Workspace) -> None:
    # In a place of its own: who lists all raters' progress meets every project.
    workspace = beside(labelling_server, workspace, workspace=f"place-{uuid.uuid4().hex}")
    collection = store(workspace, candidate(0))
    marker = {MARKER: {"collection": collection, "responses": 2, "layout": 99}}
    with connect(workspace) as argilla:
        argilla.call("POST", "datasets", {"name": "x", "workspace_id": argilla.workspace_id, "metadata": marker})
    with pytest.raises(UserError, match="made by another version of veritune"):
        push(workspace, collection, quiet)


@pytest.mark.parametrize("responses", [1, 2, 3, 50])
def test_only_what_must_be_answered_must_be(workspace: Workspace, responses: int) -> None:
    collection = store(workspace, candidate(0, responses))
    push(workspace, collection, quiet)
    ann = sign_in(workspace, "ann")
    (record,) = records(workspace, collection).values()
    first, *rest = questions(responses)
    assert (first["required"], [question["required"] for question in rest]) == (True, [False] * len(rest))
    with pytest.raises(AssertionError, match="missing response value"):
        ann.answer(record, rationale="and no more")
    places = [{"value": f"response_{mark}", "rank": 1} for mark in marks(responses)]
    ann.answer(record, **{first["name"]: {1: 5, 2: "B"}.get(responses, places)})


def test_more_answers_than_argilla_ranks_are_refused_before_anything_is_made(workspace: Workspace) -> None:
    collection = store(workspace, candidate(0, 51))
    with pytest.raises(UserError, match="51 answers to one prompt"):
        push(workspace, collection, quiet)
    assert records(workspace, collection) == {}


def test_the_digits_choose_in_the_order_of_the_guidelines() -> None:
    first = questions(2)[0]
    assert [option["value"] for option in first["settings"]["options"]] == ["A", "B", "tie", "both bad"]
    assert "`1` A, `2` B, `3` tie, `4` both bad" in guidelines(2)


def test_what_argilla_says_no_to_is_one_line(workspace: Workspace) -> None:
    with connect(workspace) as argilla, pytest.raises(RefusedError) as refused:
        argilla.call("POST", "datasets", {"name": "", "workspace_id": argilla.workspace_id})
    assert refused.value.status == 422
    assert len(refused.value.lines) == 1
    assert "\n" not in refused.value.lines[0]
