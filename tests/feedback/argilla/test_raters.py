"""Accounts of those who label: made, listed and taken away in the real server."""

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from feedback.argilla.connection import connect
from feedback.argilla.pull import pull
from feedback.argilla.push import push
from feedback.argilla.raters import add_rater, list_raters, remove_rater
from feedback.argilla.server import control
from feedback.database import Database
from feedback.errors import UserError
from feedback.workspace import Workspace
from tests.feedback.argilla.people import beside, candidate, records, sign_in, store


@pytest.fixture
def workspace(workspace: Workspace, labelling_server: Workspace) -> Workspace:
    return beside(labelling_server, workspace)


def quiet(line: str) -> None:
    pass


def fresh(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def lets_in(workspace: Workspace, username: str, password: str | None) -> bool:
    """Whether the sign-in page takes these."""
    form = {"username": username, "password": password}
    return httpx.post(f"{control.status(workspace).url}/api/v1/token", data=form).status_code == 201


def test_the_printed_password_lets_in_and_is_printed_once(
    labelling_server: Workspace, veritune: Callable[..., Any]
) -> None:
    name = fresh("ann")
    add = ("--workspace", str(labelling_server.root), "feedback", "raters", "add", name)
    first = veritune(*add)
    assert (first.status, first.err) == (0, f"rater {name} may label; the password, which is shown this once:\n")
    password = first.out.strip()
    assert len(password) >= 16
    assert lets_in(labelling_server, name, password)
    assert not lets_in(labelling_server, name, password[:-1])
    again = veritune(*add)
    assert (again.status, again.out) == (2, "")
    assert again.lines == [f"error: rater '{name}': may label already; --new-password gives a new password"]
    renewed = veritune(*add, "--new-password").out.strip()
    assert lets_in(labelling_server, name, renewed)
    assert not lets_in(labelling_server, name, password)
    for place in labelling_server.root.rglob("*.log*"):
        assert password not in place.read_text()


def test_a_rater_is_an_annotator_and_sees_the_projects(workspace: Workspace) -> None:
    collection = store(workspace, candidate(0))
    push(workspace, collection, quiet)
    ann = sign_in(workspace, "ann")
    assert ann.call("GET", "me")["role"] == "annotator"
    assert collection in [dataset["name"] for dataset in ann.call("GET", "me/datasets")["items"]]


def test_progress_is_told_by_rater(workspace: Workspace) -> None:
    asked = [candidate(n, k) for n in range(3) for k in (1, 2)]
    collection = store(workspace, *asked)
    push(workspace, collection, quiet)
    ann, robot = sign_in(workspace, "ann"), sign_in(workspace, "robot", "script")
    there = records(workspace, collection)
    for c in asked:
        robot.answer(there[c.id], **({"truthful": 1} if len(c.responses) == 1 else {"preference": "A"}))
    ann.answer(there[asked[0].id], truthful=5)
    ann.answer(there[asked[1].id], "draft")
    ann.answer(there[asked[2].id], "discarded")
    found = {r.username: (r.kind, r.labels, r.submitted, r.draft, r.discarded) for r in list_raters(workspace)}
    assert found[ann.name] == ("human", True, 1, 1, 1)
    assert found[robot.name] == ("script", True, 6, 0, 0)


def test_a_removed_rater_sees_nothing_and_the_answers_stay(workspace: Workspace) -> None:
    collection = store(workspace, candidate(0))
    push(workspace, collection, quiet)
    ann = sign_in(workspace, "ann")
    (record,) = records(workspace, collection).values()
    ann.answer(record, preference="A")
    pull(workspace, collection, quiet)
    remove_rater(workspace, ann.name)
    assert ann.call("GET", "me/datasets")["items"] == []
    body = {"items": [{"record_id": record["id"], "status": "discarded"}]}
    headers = {"X-Argilla-Api-Key": ann.key}
    outcome = httpx.post(f"{ann.url}/api/v1/me/responses/bulk", json=body, headers=headers).json()["items"][0]
    assert outcome["item"] is None
    assert pull(workspace, collection, quiet).withdrawn == 0
    with Database(workspace.database) as database:
        assert [j.rater.name for j in database.judgements([collection])] == [ann.name]
    (row,) = [r for r in list_raters(workspace) if r.username == ann.name]
    assert (row.labels, row.submitted) == (False, 1)
    with pytest.raises(UserError, match="may not label here"):
        remove_rater(workspace, ann.name)
    back = add_rater(workspace, ann.name)
    assert (back.username, back.password) == (ann.name, None)
    assert ann.call("GET", "me/datasets")["items"] != []


def test_argilla_would_delete_the_answers_with_the_account(workspace: Workspace) -> None:
    """Why a rater is removed from the workspace and keeps the account."""
    collection = store(workspace, candidate(0))
    push(workspace, collection, quiet)
    ann = sign_in(workspace, "ann")
    (record,) = records(workspace, collection).values()
    response = ann.answer(record, preference="A")
    with connect(workspace) as argilla:
        argilla.call("DELETE", f"users/{response['user_id']}")
    (record,) = records(workspace, collection).values()
    assert record["responses"] == []


def test_a_scripts_name_says_so(workspace: Workspace) -> None:
    name = fresh("bot")
    assert add_rater(workspace, name, "script").username == f"script-{name}"
    assert add_rater(workspace, f"script-{name}-2").username == f"script-{name}-2"
    with pytest.raises(UserError, match="are scripts"):
        add_rater(workspace, "script-ann", "human")


@pytest.mark.parametrize("name", ["", "a b", "-x", "a\nb", "<b>", "x" * 101])
def test_names_that_do_not_fit_are_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(UserError, match="use letters, digits"):
        add_rater(workspace, name)


def test_an_owner_can_not_be_removed(labelling_server: Workspace) -> None:
    with pytest.raises(UserError, match="an owner, who sees every project"):
        remove_rater(labelling_server, control.credentials(labelling_server).username)
