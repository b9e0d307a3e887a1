"""Bring what raters said in Argilla into the feedback database, and follow what they changed or took back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from feedback.argilla.connection import connect
from feedback.argilla.layout import HALLUCINATED, RATINGS, field_of, marks, question_of
from feedback.argilla.progress import Progress
from feedback.argilla.project import find_projects, sides_of
from feedback.argilla.raters import count_statuses, kind_of
from feedback.argilla.records import ANSWERED, STATUSES, listed
from feedback.database import Database, Followed
from feedback.errors import UserError
from feedback.files import canonical_json
from feedback.schema import BOTH_BAD, TIE, Candidate, Judgement, Rater, Span
from feedback.workspace import Workspace

SOURCE = "argilla"


@dataclass
class Pulled:
    """What a pull found.

    Args:
        statuses: how many responses there are in Argilla with each status.
        foreign: answered records that are no candidates of the collection; they are left alone.
    """

    new: int = 0
    changed: int = 0
    withdrawn: int = 0
    unchanged: int = 0
    foreign: int = 0
    statuses: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))

    def count(self, followed: Followed) -> None:
        """Add what became of one project's judgements."""
        self.new += followed.new
        self.changed += followed.changed
        self.withdrawn += followed.withdrawn
        self.unchanged += followed.unchanged


def pull(workspace: Workspace, collection: str, say: Callable[[str], None]) -> Pulled:
    """Make the collection's judgements from Argilla those that stand there now.

    A project that is as it was at the last pull costs three small requests. A project that was deleted as a whole, or
    whose server is gone, takes no label with it.

    Args:
        say: receives progress, one line at a time.

    Raises:
        UserError: no such collection, nothing of it in Argilla, or no Argilla.
    """
    with connect(workspace, say) as argilla, Database(workspace.database) as database:
        database.require([collection])
        projects = find_projects(argilla, collection)
        if not projects:
            raise UserError(
                f"collection {collection!r}: not in Argilla; send it there with `veritune feedback push {collection}`"
            )
        result = Pulled()
        candidates: dict[str, Candidate] = {}
        for project in projects:
            users = argilla.call("GET", f"datasets/{project.id}/users/progress")["users"]
            statuses = count_statuses(users)
            for status, count in statuses.items():
                result.statuses[status] += count
            # Read before the records: what changes meanwhile is seen by the next pull.
            state = canonical_json([project.activity, users])
            if state == database.followed_state(collection, SOURCE, project.id):
                result.unchanged += sum(statuses.values())
                continue
            candidates = candidates or {c.id: c for c in database.candidates([collection])}
            answered = []
            progress = Progress(sum(statuses.values()), project.name, say)
            for record in listed(argilla, project.id, ANSWERED):
                answered.append(record)
                progress.step(len(record["responses"]))
            ours = [record for record in answered if record["external_id"] in candidates]
            result.foreign += len(answered) - len(ours)
            names = {user["id"]: user["username"] for user in argilla.call("GET", "users")["items"]}
            judgements = [
                judgement_of(record, response, names[response["user_id"]], candidates[record["external_id"]])
                for record in ours
                for response in record["responses"]
                if response["user_id"] in names
            ]
            # An index that lags behind Argilla's tables has not shown all yet: look again the next time.
            all_seen = progress.done == progress.total
            result.count(database.follow(collection, SOURCE, judgements, project.id, state if all_seen else ""))
            if answered:
                say(f"{project.name}: {len(judgements):,} responses to {len(ours):,} records read")
    return result


def judgement_of(record: dict[str, Any], response: dict[str, Any], username: str, candidate: Candidate) -> Judgement:
    """A response in Argilla as a judgement of the candidate, whichever answer stood where.

    Raises:
        UserError: it can't be kept, or the record is not what was sent.
    """
    said = {name: given["value"] for name, given in (response["values"] or {}).items()}
    place = dict(zip(marks(len(candidate.responses)), sides_of(record, candidate), strict=True))
    preference = said.get("preference", "")
    try:
        return Judgement(
            candidate_id=candidate.id,
            rater=Rater(kind=kind_of(username), name=username),
            source=SOURCE,
            preferred=preference if preference in (TIE, BOTH_BAD) else place.get(preference),
            ranking=_ranking(said["ranking"], place) if said.get("ranking") else None,
            ratings={
                f"{about}[{index}]": said[question_of(about, mark)]
                for mark, index in place.items()
                for about in RATINGS
                if said.get(question_of(about, mark)) is not None
            },
            rationale=(said.get("rationale") or "").strip() or None,
            rewrite=(said.get("rewrite") or "").strip() or None,
            spans=tuple(
                span
                for mark, index in sorted(place.items(), key=lambda item: item[1])
                for span in _spans(said.get(question_of(HALLUCINATED, mark)) or [], index, candidate)
            ),
            status=response["status"],
            created_at=datetime.fromisoformat(response["updated_at"]).replace(tzinfo=UTC),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"record {record['external_id']} in Argilla, answer of {username!r}: {first['loc'][0]}: {first['msg']}; "
            "change it there"
        ) from None


def _ranking(ranked: list[dict[str, Any]], place: dict[str, int]) -> tuple[tuple[int, ...], ...] | None:
    """Groups of responses, best first; in a draft some have no rank yet."""
    by_field = {field_of(mark): index for mark, index in place.items()}
    groups: dict[int, list[int]] = {}
    for item in ranked:
        if item.get("rank") is not None:
            groups.setdefault(item["rank"], []).append(by_field[item["value"]])
    return tuple(tuple(sorted(groups[rank])) for rank in sorted(groups)) or None


def _spans(marked: list[dict[str, Any]], response: int, candidate: Candidate) -> list[Span]:
    text = candidate.responses[response].text
    return [
        Span(
            response=response,
            start=_code_points(text, span["start"]),
            end=_code_points(text, span["end"]),
            label=span["label"],
        )
        for span in sorted(marked, key=lambda span: span["start"])
    ]


def _code_points(text: str, offset: int) -> int:
    """An offset as Python counts it. Argilla's page counts UTF-16 units: an emoji is two of them."""
    return len(text.encode("utf-16-le")[: 2 * offset].decode("utf-16-le", "ignore"))
