"""Raters of the real labelling server see first what the judges leave most open, without doing anything for it."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import pytest

from feedback.argilla import order as orders
from feedback.argilla.connection import connect
from feedback.argilla.project import find_projects
from feedback.argilla.push import push
from feedback.database import Database
from feedback.errors import UserError
from feedback.schema import Candidate, Judgement, Rater
from feedback.workspace import Workspace
from tests.feedback.argilla.people import Person, beside, candidate, records, sign_in, store

WAITING = [
    {"type": "terms", "scope": {"entity": entity, "property": "status"}, "values": ["pending"]}
    for entity in ("response", "record")
]
SURE, UNSURE = 0.97, 0.55


@pytest.fixture
def workspace(workspace: Workspace, labelling_server: Workspace) -> Workspace:
    return beside(labelling_server, workspace)


@pytest.fixture
def ann(workspace: Workspace) -> Person:
    return sign_in(workspace, "ann")


def quiet(line: str) -> None:
    pass


def judge(workspace: Workspace, collection: str, said: Iterable[tuple[Candidate, float]], name: str = "judge") -> None:
    """Let a judge say of candidates how probable it is that the first answer is the better one."""
    judgements = [
        Judgement(
            candidate_id=asked.id,
            rater=Rater(kind="ai", name=name),
            source="reward",
            preferred=int(p < 0.5),
            probability=max(p, 1 - p),
        )
        for asked, p in said
    ]
    with Database(workspace.database) as database:
        database.add(collection, judgements=judgements)


def queue(workspace: Workspace, collection: str, person: Person, **sort: Any) -> list[str]:
    """Ids of the candidates that wait for somebody, as the page asks for them: without a word about their order."""
    with connect(workspace) as argilla:
        (project,) = find_projects(argilla, collection)
    body: dict[str, Any] = {"filters": {"and": WAITING}, **sort}
    found: list[str] = []
    while True:
        page = person.call("POST", f"me/datasets/{project.id}/records/search", body, offset=len(found), limit=4)
        found += [item["record"]["external_id"] for item in page["items"]]
        if not page["items"]:
            assert len(found) == page["total"]
            return found


def test_what_judges_doubt_comes_first_and_each_rater_has_an_own_order_within_a_step(workspace: Workspace) -> None:
    asked = [candidate(n) for n in range(30)]
    collection = store(workspace, *asked)
    judge(workspace, collection, ((each, (0.52, 0.74, 0.99)[n % 3]) for n, each in enumerate(asked)))
    assert push(workspace, collection, quiet, order="uncertain").sent == 30
    seen = [queue(workspace, collection, sign_in(workspace, "rater")) for _ in range(4)]
    for ids in seen:
        assert [set(ids[start : start + 10]) for start in (0, 10, 20)] == [
            {c.id for c in asked[n::3]} for n in range(3)
        ]
    assert len({tuple(ids) for ids in seen}) > 1


def test_a_judge_that_speaks_later_moves_what_waits_and_nothing_else(workspace: Workspace, ann: Person) -> None:
    first, second, answered, deleted = asked = [candidate(n) for n in range(4)]
    collection = store(workspace, *asked)
    judge(workspace, collection, zip(asked, (UNSURE, SURE, SURE, SURE), strict=True))
    push(workspace, collection, quiet, order="uncertain")
    there = records(workspace, collection)
    ann.answer(there[answered.id], preference="A")
    with connect(workspace) as argilla:
        argilla.call("DELETE", f"records/{there[deleted.id]['id']}")
    bob = sign_in(workspace, "bob")
    assert queue(workspace, collection, bob) == [first.id, second.id]
    # A reward model, or another judge: it contradicts the first one, on the second pair.
    judge(workspace, collection, zip(asked, (SURE, 1 - SURE, 1 - SURE, 1 - SURE), strict=True), "reward-1")
    pushed = push(workspace, collection, quiet)
    assert (pushed.sent, pushed.moved, pushed.order) == (0, 2, "uncertain")
    assert queue(workspace, collection, bob) == [second.id, first.id]
    now = records(workspace, collection)
    assert set(now) == {first.id, second.id, answered.id}
    assert now[answered.id]["metadata"] == there[answered.id]["metadata"]
    assert now[first.id]["metadata"] | {"uncertainty_of_the_judges": 0.9} == there[first.id]["metadata"]
    assert {id_: each["fields"] for id_, each in now.items()} == {id_: there[id_]["fields"] for id_ in now}
    assert push(workspace, collection, quiet).moved == 0


def test_an_order_that_came_later_and_went_again(workspace: Workspace, ann: Person) -> None:
    asked = [candidate(n) for n in range(12)]
    collection = store(workspace, *asked)
    push(workspace, collection, quiet)
    shuffled = queue(workspace, collection, ann)
    with pytest.raises(UserError, match=rf"no judge has compared .*\(`veritune feedback judge {collection} --model"):
        push(workspace, collection, quiet, order="uncertain")
    assert queue(workspace, collection, ann) == shuffled
    # One of the pairs has no judge: it is as open as can be.
    probability = {c.id: 0.5 if n == 7 else 0.5 + n / 30 for n, c in enumerate(asked)}
    judge(workspace, collection, ((c, probability[c.id]) for n, c in enumerate(asked) if n != 7))
    pushed = push(workspace, collection, quiet, order="uncertain")
    assert (pushed.moved, pushed.unjudged, pushed.links) == (12, 1, {})
    ordered = queue(workspace, collection, ann)
    assert set(ordered[:2]) == {asked[0].id, asked[7].id}
    steps = [int(10 * round(1 - abs(2 * probability[id_] - 1), 3)) for id_ in ordered]
    assert steps == sorted(steps, reverse=True)
    # Who asks for another order gets it.
    age = {"scope": {"entity": "record", "property": "inserted_at"}, "order": "desc"}
    assert queue(workspace, collection, ann, sort=[age]) != ordered
    assert push(workspace, collection, quiet, order="shuffled").order == "shuffled"
    assert queue(workspace, collection, ann) == shuffled
    assert push(workspace, collection, quiet).order == "shuffled"


def test_rankings_are_ordered_and_single_answers_are_not(workspace: Workspace, ann: Person) -> None:
    pair, alone, one, other = candidate(0), candidate(1, 1), candidate(2, 3), candidate(3, 3)
    collection = store(workspace, pair, alone, one, other)
    judge(workspace, collection, [(pair, SURE), (one, 1.0)])
    rankings = [
        Judgement(
            candidate_id=each.id,
            rater=Rater(kind="ai", name="ranker"),
            source="s",
            ranking=((2,), (1,), (0,)),
            probability=probability,
        )
        for each, probability in ((one, 0.9), (other, 0.6))
    ]
    with Database(workspace.database) as database:
        database.add(collection, judgements=rankings)
    assert push(workspace, collection, quiet, order="uncertain").sent == 4
    with connect(workspace) as argilla:
        ordered = {project.responses: orders.is_ordered(project) for project in find_projects(argilla, collection)}
    assert ordered == {1: False, 2: True, 3: True}
    there = records(workspace, collection)
    values = {id_: record["metadata"].get("uncertainty_of_the_judges") for id_, record in there.items()}
    # Of `one`, the first judge says that answer 0 is certainly better than both others, the second that it is worst.
    assert values[alone.id] is None
    assert values[other.id] == pytest.approx(0.8)
    assert values[one.id] == pytest.approx((0.9 + 0.9 + 0.2) / 3, abs=1e-3)


def test_a_candidates_own_metadata_of_that_name_is_kept_apart(workspace: Workspace) -> None:
    asked = candidate(0, **{"uncertainty of the judges": "by hand"})
    collection = store(workspace, asked)
    push(workspace, collection, quiet)
    judge(workspace, collection, [(asked, 0.75)])
    push(workspace, collection, quiet, order="uncertain")
    metadata = records(workspace, collection)[asked.id]["metadata"]
    assert metadata["uncertainty_of_the_judges"] == "by hand"
    assert metadata["uncertainty_of_the_judges_2"] == 0.5


def test_another_argilla_is_sorted_by_whoever_opens_the_link(
    workspace: Workspace, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "OURS", "elasticsearch is not ours")
    asked = [candidate(n) for n in range(5)]
    collection = store(workspace, *asked)
    judge(workspace, collection, ((c, 0.5 + n / 10) for n, c in enumerate(asked)))
    (link,) = push(workspace, collection, quiet, order="uncertain").links.values()
    parts = urlsplit(link)
    with connect(workspace) as argilla:
        (project,) = find_projects(argilla, collection)
        assert link.startswith(argilla.address)
    assert (parts.path, parts.query) == (
        f"/dataset/{project.id}/annotation-mode",
        "sort=metadata.uncertainty_of_the_judges.desc",
    )
    # As the page asks, from what stands in its address; a rater may see the property, or the page would not sort by it.
    sort = {"scope": {"entity": "metadata", "metadata_property": "uncertainty_of_the_judges"}, "order": "desc"}
    assert queue(workspace, collection, ann, sort=[sort]) == [c.id for c in asked]
    visible = ann.call("GET", f"me/datasets/{project.id}/metadata-properties")["items"]
    assert [each["title"] for each in visible] == ["Uncertainty of the judges"]
