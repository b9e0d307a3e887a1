"""The people, and the scripts, who label: their accounts in Argilla."""

import re
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from feedback.argilla.connection import Connection, connect
from feedback.argilla.project import marked_datasets
from feedback.errors import UserError
from feedback.workspace import Workspace

# An account says by its name that no person sits behind it: every rater sees that, and no export loses it.
SCRIPT_PREFIX = "script-"
RaterKind = Literal["human", "script"]


@dataclass(frozen=True)
class NewRater:
    """An account that may label now.

    Args:
        password: nothing where the account was there already, and keeps its own.
    """

    username: str
    password: str | None


@dataclass(frozen=True)
class RaterProgress:
    """A rater, and how many responses there are of each status in all projects.

    Args:
        labels: whether the account sees the projects now.
    """

    username: str
    kind: RaterKind
    labels: bool
    submitted: int
    draft: int
    discarded: int


def kind_of(username: str) -> RaterKind:
    """Whether an account is a person's or a script's."""
    return "script" if username.startswith(SCRIPT_PREFIX) else "human"


def add_rater(
    workspace: Workspace,
    name: str,
    kind: RaterKind | None = None,
    new_password: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> NewRater:
    """Make an account that may label, or let one that is there label in this workspace too.

    Args:
        kind: a script's name is given the prefix that marks it.
        new_password: give an account that is there a new password.

    Raises:
        UserError: the name does not fit, or Argilla is not there.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}", name):
        raise UserError(f"rater {name!r}: use letters, digits and . _ @ - and begin with a letter or a digit")
    username = f"{SCRIPT_PREFIX}{name}" if kind == "script" and kind_of(name) == "human" else name
    if kind == "human" and kind_of(name) == "script":
        raise UserError(f"rater {name!r}: names that begin with {SCRIPT_PREFIX!r} are scripts; choose another")
    with connect(workspace, say) as argilla:
        user = {user["username"]: user for user in argilla.call("GET", "users")["items"]}.get(username)
        password = secrets.token_urlsafe(12) if user is None or new_password else None
        if user is None:
            user = make_user(argilla, username, password or "")
        elif new_password:
            argilla.call("PATCH", f"users/{user['id']}", {"password": password})
        joined = join_workspace(argilla, user["id"])
        if password is None and not joined:
            raise UserError(f"rater {username!r}: may label already; --new-password gives a new password")
        return NewRater(username, password)


def list_raters(workspace: Workspace, say: Callable[[str], None] = lambda line: None) -> list[RaterProgress]:
    """Everybody who may label or has labelled, by name."""
    with connect(workspace, say) as argilla:
        labels = members(argilla)
        answers: dict[str, Counter[str]] = {name: Counter() for name in labels}
        for dataset in marked_datasets(argilla):
            for user in argilla.call("GET", f"datasets/{dataset['id']}/users/progress")["users"]:
                answers.setdefault(user["username"], Counter()).update(count_statuses([user]))
        return [
            RaterProgress(name, kind_of(name), name in labels, said["submitted"], said["draft"], said["discarded"])
            for name, said in sorted(answers.items())
        ]


def remove_rater(workspace: Workspace, name: str, say: Callable[[str], None] = lambda line: None) -> None:
    """Take the projects from a rater. What the rater said stays: with the account, Argilla would delete the answers.

    Raises:
        UserError: nobody of that name may label.
    """
    with connect(workspace, say) as argilla:
        if name == argilla.username:
            raise UserError(f"rater {name!r}: an owner, who sees every project; only an annotator can be removed")
        labels = members(argilla)
        if name not in labels:
            raise UserError(f"rater {name!r}: may not label here; there are {', '.join(sorted(labels)) or 'none'}")
        argilla.call("DELETE", f"workspaces/{argilla.workspace_id}/users/{labels[name]}")


def make_user(argilla: Connection, username: str, password: str) -> dict[str, Any]:
    """Make an annotator's account."""
    body = {"username": username, "first_name": username, "role": "annotator", "password": password}
    user: dict[str, Any] = argilla.call("POST", "users", body)
    return user


def join_workspace(argilla: Connection, user_id: str) -> bool:
    """Let an account see the projects; whether it did not before."""
    if user_id in members(argilla).values():
        return False
    argilla.call("POST", f"workspaces/{argilla.workspace_id}/users", {"user_id": user_id})
    return True


def count_statuses(users: list[dict[str, Any]]) -> Counter[str]:
    """How many responses there are of each status, from Argilla's progress of users."""
    counts: Counter[str] = Counter()
    for user in users:
        for part in ("completed", "pending"):
            counts.update(user.get(part) or {})
    return counts


def members(argilla: Connection) -> dict[str, str]:
    """Ids of the accounts that see the projects, by name."""
    listed = argilla.call("GET", f"workspaces/{argilla.workspace_id}/users")["items"]
    return {user["username"]: user["id"] for user in listed}
