"""Candidates to the real labelling server, and what people say there back into the database."""

from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest

from feedback.argilla import records as wire
from feedback.argilla.connection import connect
from feedback.argilla.project import find_projects, sides
from feedback.argilla.pull import Pulled, pull
from feedback.argilla.push import push
from feedback.curation.build import build
from feedback.curation.options import Options
from feedback.curation.splits import SPLITS
from feedback.database import Database
from feedback.errors import UserError
from feedback.schema import Candidate, Judgement, Message, Response, Span, Status, user_message
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from tests.feedback.argilla.people import Person, beside, candidate, records, sign_in, store


@pytest.fixture
def workspace(workspace: Workspace, labelling_server: Workspace) -> Workspace:
    return beside(labelling_server, workspace)


@pytest.fixture
def ann(workspace: Workspace) -> Person:
    return sign_in(workspace, "ann")


def quiet(line: str) -> None:
    pass


def said(workspace: Workspace, collection: str, status: Status = "submitted") -> list[Judgement]:
    with Database(workspace.database) as database:
        return list(database.judgements([collection], status))


def shown_first(response: int, responses: int = 2) -> Candidate:
    """A candidate whose first place on the page has this response."""
    return next(c for c in (candidate(n, responses) for n in range(100)) if sides(c)[0] == response)


def pairs_of(version: DatasetVersion) -> set[tuple[str, str]]:
    return {(pair["chosen"], pair["rejected"]) for split in SPLITS for pair in version.pairs(split)}


# To Argilla


def test_a_second_push_sends_nothing_and_doubles_nothing(workspace: Workspace) -> None:
    collection = store(workspace, *(candidate(n, k) for n in range(3) for k in (1, 2, 3)))
    first = push(workspace, collection, quiet)
    assert (first.sent, first.known, first.refused) == (9, 0, {})
    assert first.projects == {f"{collection}-single": 3, collection: 3, f"{collection}-rank-3": 3}
    before = records(workspace, collection)
    second = push(workspace, collection, quiet)
    assert (second.sent, second.known) == (0, 9)
    assert records(workspace, collection) == before
    with Database(workspace.database) as database:
        database.add(collection, [candidate(3)])
    assert push(workspace, collection, quiet).sent == 1
    assert len(records(workspace, collection)) == 10


def test_what_was_deleted_in_argilla_does_not_come_back_by_itself(workspace: Workspace, ann: Person) -> None:
    kept, deleted = candidate(0), candidate(1)
    collection = store(workspace, kept, deleted)
    push(workspace, collection, quiet)
    there = records(workspace, collection)
    ann.answer(there[kept.id], preference="A")
    with connect(workspace) as argilla:
        argilla.call("DELETE", f"records/{there[deleted.id]['id']}")
    assert push(workspace, collection, quiet).sent == 0
    assert set(records(workspace, collection)) == {kept.id}
    assert push(workspace, collection, quiet, again=True).sent == 2
    there = records(workspace, collection)
    assert set(there) == {kept.id, deleted.id}
    assert [response["status"] for response in there[kept.id]["responses"]] == ["submitted"]


def test_an_interrupted_push_goes_on_where_it_was(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_RECORDS", 4)
    collection = store(workspace, *(candidate(n) for n in range(10)))
    real, calls = Database.mark_pushed, []

    def killed(self: Database, *arguments: Any) -> None:
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(arguments)
        real(self, *arguments)

    # Between two batches: the second is in Argilla, and not yet noted here.
    monkeypatch.setattr(Database, "mark_pushed", killed)
    with pytest.raises(KeyboardInterrupt):
        push(workspace, collection, quiet)
    monkeypatch.setattr(Database, "mark_pushed", real)
    assert len(records(workspace, collection)) == 8
    assert push(workspace, collection, quiet).sent == 6
    assert len(records(workspace, collection)) == 10


def test_what_argilla_refuses_is_named_and_the_rest_is_sent(workspace: Workspace) -> None:
    turns = tuple(Message(role="user", content=f"turn {n}") for n in range(501))
    too_long = Candidate(prompt=turns, responses=(Response(text="a"), Response(text="b")))
    fine = [candidate(n) for n in range(5)]
    collection = store(workspace, *fine[:3], too_long, *fine[3:])
    pushed = push(workspace, collection, quiet)
    assert pushed.sent == 5
    assert list(pushed.refused) == [too_long.id]
    assert "500" in pushed.refused[too_long.id]
    assert set(records(workspace, collection)) == {c.id for c in fine}


def test_texts_arrive_as_they_are(workspace: Workspace, ann: Person) -> None:
    hostile = '<img src=x onerror=alert(1)>\x00\x1b[31m {{x}} "; DROP TABLE records; -- \U0001f600 \u202e \r\n'
    odd = Candidate(
        prompt=(Message(role="system", content=""), Message(role="user", content=hostile)),
        context=hostile,
        responses=(Response(text=hostile), Response(text="")),
    )
    long = Candidate(prompt=user_message("x" * 900_000), responses=(Response(text="y" * 900_000), Response(text="z")))
    nothing = Candidate(prompt=user_message(""), responses=(Response(text="a"), Response(text="b")))
    collection = store(workspace, odd, long, nothing)
    pushed = push(workspace, collection, quiet)
    assert (pushed.sent, pushed.refused) == (3, {})
    there = records(workspace, collection)
    fields = there[odd.id]["fields"]
    assert fields["prompt"] == [{"role": "user", "content": hostile}]
    assert fields["context"] == hostile
    # Of an empty answer the page would show nothing at all, not even its frame.
    assert {fields["response_a"], fields["response_b"]} == {hostile, " "}
    for record in there.values():
        ann.answer(record, preference="A", rationale=hostile)
    assert pull(workspace, collection, quiet).new == 3
    assert {j.candidate_id: j.preferred for j in said(workspace, collection)} == {
        c.id: sides(c)[0] for c in (odd, long, nothing)
    }
    assert {j.rationale for j in said(workspace, collection)} == {hostile.strip()}


def test_a_collection_that_is_not_there_is_named(workspace: Workspace) -> None:
    store(workspace, candidate(0))
    for command in (lambda: push(workspace, "nope", quiet), lambda: pull(workspace, "nope", quiet)):
        with pytest.raises(UserError, match="'nope': not here"):
            command()


# Back


@pytest.mark.parametrize("first", [0, 1])
def test_every_question_comes_back_to_its_response(workspace: Workspace, ann: Person, first: int) -> None:
    asked = shown_first(first)
    collection = store(workspace, asked)
    push(workspace, collection, quiet)
    before = datetime.now(UTC)
    ann.answer(
        records(workspace, collection)[asked.id],
        preference="A",
        truthful_a=5,
        helpful_a=4,
        truthful_b=1,
        helpful_b=2,
        hallucinated_b=[
            {"start": 7, "end": 8, "label": "hallucinated"},
            {"start": 0, "end": 6, "label": "hallucinated"},
        ],
        rewrite=" a better answer \n",
        rationale="because",
    )
    assert pull(workspace, collection, quiet).new == 1
    (judgement,) = said(workspace, collection)
    other = 1 - first
    assert (judgement.rater.kind, judgement.rater.name, judgement.source) == ("human", ann.name, "argilla")
    assert judgement.preferred == first
    assert judgement.ratings == {
        f"truthful[{first}]": 5,
        f"helpful[{first}]": 4,
        f"truthful[{other}]": 1,
        f"helpful[{other}]": 2,
    }
    assert judgement.spans == (
        Span(response=other, start=0, end=6, label="hallucinated"),
        Span(response=other, start=7, end=8, label="hallucinated"),
    )
    assert (judgement.rewrite, judgement.rationale) == ("a better answer", "because")
    assert before < judgement.created_at < datetime.now(UTC)


@pytest.mark.parametrize("choice", ["tie", "both bad"])
def test_ties_and_both_bad_are_kept(workspace: Workspace, ann: Person, choice: str) -> None:
    collection = store(workspace, candidate(0))
    push(workspace, collection, quiet)
    (record,) = records(workspace, collection).values()
    ann.answer(record, preference=choice)
    pull(workspace, collection, quiet)
    assert [judgement.preferred for judgement in said(workspace, collection)] == [choice]


def test_every_status_is_kept(workspace: Workspace, ann: Person) -> None:
    asked = [candidate(n) for n in range(4)]
    collection = store(workspace, *asked)
    push(workspace, collection, quiet)
    there = records(workspace, collection)
    ann.answer(there[asked[0].id], "submitted", preference="tie")
    ann.answer(there[asked[1].id], "draft", truthful_a=3)
    ann.answer(there[asked[2].id], "discarded")
    pulled = pull(workspace, collection, quiet)
    assert pulled == Pulled(new=3, statuses={"submitted": 1, "draft": 1, "discarded": 1})
    assert [j.candidate_id for j in said(workspace, collection)] == [asked[0].id]
    (draft,) = said(workspace, collection, "draft")
    assert (draft.candidate_id, draft.preferred, list(draft.ratings.values())) == (asked[1].id, None, [3])
    assert [j.candidate_id for j in said(workspace, collection, "discarded")] == [asked[2].id]


def test_a_single_answer_is_rated_and_rewritten(workspace: Workspace, ann: Person) -> None:
    asked = candidate(0, 1)
    collection = store(workspace, asked)
    push(workspace, collection, quiet)
    mark = [{"start": 0, "end": 6, "label": "hallucinated"}]
    ann.answer(records(workspace, collection)[asked.id], truthful=2, hallucinated=mark, rewrite="better")
    pull(workspace, collection, quiet)
    (judgement,) = said(workspace, collection)
    assert (judgement.preferred, judgement.ratings, judgement.rewrite) == (None, {"truthful[0]": 2}, "better")
    assert judgement.spans == (Span(response=0, start=0, end=6, label="hallucinated"),)
    version, _ = build(workspace, "made", [collection])
    assert [row["completion"] for split in SPLITS for row in version.demonstrations(split)] == ["better"]


@pytest.mark.parametrize("responses", [3, 4])
def test_a_ranking_with_a_tie_becomes_pairs(workspace: Workspace, ann: Person, responses: int) -> None:
    asked = candidate(0, responses)
    collection = store(workspace, asked)
    push(workspace, collection, quiet)
    order = sides(asked)
    # Response 1 is best; 0 and 2 share the second place; any others follow.
    ranks = {1: 1, 0: 2, 2: 2, 3: 4}
    ranking = [{"value": f"response_{place}", "rank": ranks[index]} for place, index in enumerate(order, 1)]
    ann.answer(records(workspace, collection)[asked.id], ranking=ranking)
    pull(workspace, collection, quiet)
    (judgement,) = said(workspace, collection)
    assert judgement.ranking == ((1,), (0, 2), (3,))[: responses - 1]
    text = [response.text for response in asked.responses]
    better = [(1, 0), (1, 2), (1, 3), (0, 3), (2, 3)]
    expected = {(text[a], text[b]) for a, b in better if max(a, b) < responses}
    assert pairs_of(build(workspace, "ranked", [collection])[0]) == expected


def test_a_half_made_ranking_keeps_what_is_placed(workspace: Workspace, ann: Person) -> None:
    asked = candidate(0, 3)
    collection = store(workspace, asked)
    push(workspace, collection, quiet)
    ann.answer(
        records(workspace, collection)[asked.id],
        "draft",
        ranking=[{"value": "response_2", "rank": 1}, {"value": "response_1"}],
    )
    pull(workspace, collection, quiet)
    (draft,) = said(workspace, collection, "draft")
    assert draft.ranking == ((sides(asked)[1],),)


def test_spans_are_counted_as_the_page_counts_them(workspace: Workspace, ann: Person) -> None:
    # A browser counts UTF-16 units: the emoji before the marked word is two of them.
    asked = Candidate(prompt=user_message("?"), responses=(Response(text="\U0001f600 made up here, and more"),))
    collection = store(workspace, asked)
    push(workspace, collection, quiet)
    mark = [{"start": 3, "end": 10, "label": "hallucinated"}]
    ann.answer(records(workspace, collection)[asked.id], truthful=1, hallucinated=mark)
    pull(workspace, collection, quiet)
    (span,) = said(workspace, collection)[0].spans
    assert asked.responses[0].text[span.start : span.end] == "made up"


def test_two_people_label_each_record_where_the_overlap_is_two(
    workspace: Workspace, labelling_server: Workspace, ann: Person
) -> None:
    workspace = beside(labelling_server, workspace, overlap=2)
    asked = candidate(0)
    collection = store(workspace, asked)
    push(workspace, collection, quiet)
    bob = sign_in(workspace, "bob")
    ann.answer(records(workspace, collection)[asked.id], preference="A")
    assert records(workspace, collection)[asked.id]["status"] == "pending"
    bob.answer(records(workspace, collection)[asked.id], preference="B")
    assert records(workspace, collection)[asked.id]["status"] == "completed"
    assert pull(workspace, collection, quiet).new == 2
    assert {(j.rater.name, j.preferred) for j in said(workspace, collection)} == {
        (ann.name, sides(asked)[0]),
        (bob.name, sides(asked)[1]),
    }


def test_a_script_is_no_person(workspace: Workspace) -> None:
    robot = sign_in(workspace, "robot", "script")
    collection = store(workspace, candidate(0))
    push(workspace, collection, quiet)
    (record,) = records(workspace, collection).values()
    robot.answer(record, preference="A")
    pull(workspace, collection, quiet)
    assert [j.rater.kind for j in said(workspace, collection)] == ["script"]


def test_opposed_votes_are_settled_in_a_project_of_their_own(workspace: Workspace, labelling_server: Workspace) -> None:
    workspace = beside(labelling_server, workspace, overlap=2)
    agreed, opposed = candidate(0), candidate(1)
    collection = store(workspace, agreed, opposed)
    push(workspace, collection, quiet)
    ann, bob, cid = (sign_in(workspace, name) for name in ("ann", "bob", "cid"))
    there = records(workspace, collection)
    for rater, preferred in ((ann, 0), (bob, 1)):
        rater.answer(there[agreed.id], preference="AB"[sides(agreed).index(0)])
        rater.answer(there[opposed.id], preference="AB"[sides(opposed).index(preferred)])
    pull(workspace, collection, quiet)
    adjudicate = Options(conflicts="adjudicate")
    name = f"d-{collection}"
    first, _ = build(workspace, name, [collection], options=adjudicate)
    assert (first.manifest["pairs"], first.manifest["dropped"]) == (1, {"conflict": 1})

    conflicts = f"{name}-conflicts"
    workspace = beside(labelling_server, workspace, overlap=1)
    assert push(workspace, conflicts, quiet).projects == {conflicts: 1}
    (record,) = records(workspace, conflicts).values()
    # Nobody is told what was said before.
    assert record["responses"] == record.get("suggestions", []) == []
    cid.answer(record, preference="AB"[sides(opposed).index(1)])
    pull(workspace, conflicts, quiet)
    second, _ = build(workspace, name, [collection, conflicts], options=adjudicate)
    assert second.manifest["dropped"] == {}
    rows = [row for split in SPLITS for row in second.pairs(split)]
    settled = next(row for row in rows if "1 to 1" in row["chosen"])
    assert (len(rows), settled["probability"], len(settled["judgements"])) == (2, pytest.approx(2 / 3), 3)


# What changes


def test_nothing_new_is_nothing_read(workspace: Workspace, ann: Person) -> None:
    collection = store(workspace, candidate(0))
    push(workspace, collection, quiet)
    (record,) = records(workspace, collection).values()
    ann.answer(record, preference="A")
    pull(workspace, collection, quiet)
    lines: list[str] = []
    again = pull(workspace, collection, lines.append)
    assert again == Pulled(unchanged=1, statuses={"submitted": 1, "draft": 0, "discarded": 0})
    assert lines == []


def test_edits_are_followed(workspace: Workspace, ann: Person) -> None:
    asked = candidate(0)
    collection = store(workspace, asked)
    push(workspace, collection, quiet)
    record = records(workspace, collection)[asked.id]
    for choice, status in [("A", "submitted"), ("B", "submitted"), ("B", "draft"), ("tie", "submitted")]:
        ann.answer(record, status, preference=choice)
        pulled = pull(workspace, collection, quiet)
        assert pulled.new + pulled.changed == 1
        (judgement,) = said(workspace, collection, status)
        assert judgement.preferred == (choice if choice == "tie" else sides(asked)["AB".index(choice)])
    ann.answer(record, "discarded", preference="tie")
    assert pull(workspace, collection, quiet).changed == 1
    assert said(workspace, collection) == []


def test_a_deleted_response_and_a_deleted_record_are_withdrawn(workspace: Workspace, ann: Person) -> None:
    asked = [candidate(n) for n in range(3)]
    collection = store(workspace, *asked)
    push(workspace, collection, quiet)
    there = records(workspace, collection)
    responses = [ann.answer(there[c.id], preference="A") for c in asked]
    pull(workspace, collection, quiet)
    ann.call("DELETE", f"responses/{responses[0]['id']}")
    assert pull(workspace, collection, quiet).withdrawn == 1
    with connect(workspace) as argilla:
        argilla.call("DELETE", f"records/{there[asked[1].id]['id']}")
    assert pull(workspace, collection, quiet).withdrawn == 1
    assert [judgement.candidate_id for judgement in said(workspace, collection)] == [asked[2].id]
    with Database(workspace.database) as database:
        ids = [database.find_judgement(j.id) for j in said(workspace, collection)]
    assert len(ids) == 1


def test_a_label_that_is_given_again_stands_again(workspace: Workspace, ann: Person) -> None:
    collection = store(workspace, candidate(0))
    push(workspace, collection, quiet)
    (record,) = records(workspace, collection).values()
    response = ann.answer(record, preference="A")
    pull(workspace, collection, quiet)
    ann.call("DELETE", f"responses/{response['id']}")
    pull(workspace, collection, quiet)
    assert said(workspace, collection) == []
    ann.answer(record, preference="A")
    assert pull(workspace, collection, quiet).new == 1
    assert len(said(workspace, collection)) == 1


def test_a_project_that_is_gone_takes_no_label_with_it(workspace: Workspace, ann: Person) -> None:
    asked = [candidate(0), candidate(1)]
    collection = store(workspace, *asked)
    push(workspace, collection, quiet)
    there = records(workspace, collection)
    for c in asked:
        ann.answer(there[c.id], preference="A")
    pull(workspace, collection, quiet)
    with connect(workspace) as argilla:
        (project,) = find_projects(argilla, collection)
        argilla.call("DELETE", f"datasets/{project.id}")
    with pytest.raises(UserError, match=f"veritune feedback push {collection}"):
        pull(workspace, collection, quiet)
    assert push(workspace, collection, quiet).sent == 2
    assert pull(workspace, collection, quiet) == Pulled()
    assert len(said(workspace, collection)) == 2
    # What the same rater says in the new project counts.
    ann.answer(records(workspace, collection)[asked[0].id], preference="both bad")
    assert pull(workspace, collection, quiet).changed == 1
    assert {judgement.preferred for judgement in said(workspace, collection)} == {"both bad", sides(asked[1])[0]}


def test_strange_records_are_counted_and_left_alone(workspace: Workspace, ann: Person) -> None:
    asked = candidate(0)
    collection = store(workspace, asked)
    push(workspace, collection, quiet)
    with connect(workspace) as argilla:
        (project,) = find_projects(argilla, collection)
        turn = [{"role": "user", "content": "?"}]
        fields = {"prompt": turn, "response_a": "a", "response_b": "b"}
        body = {"items": [{"external_id": "strange", "fields": fields}, {"fields": fields}]}
        argilla.call("POST", f"datasets/{project.id}/records/bulk", body)
        there = list(wire.listed(argilla, project.id))
    for record in there:
        ann.answer(record, preference="A")
    pulled = pull(workspace, collection, quiet)
    assert (pulled.new, pulled.foreign) == (1, 2)
    assert len(records(workspace, collection)) == 3


def test_pages_of_answers_are_all_read(workspace: Workspace, ann: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PAGE", 3)
    asked = [candidate(n) for n in range(11)]
    collection = store(workspace, *asked)
    push(workspace, collection, quiet)
    for record in records(workspace, collection).values():
        ann.answer(record, preference="A")
    assert pull(workspace, collection, quiet).new == 11
    assert {j.candidate_id: j.preferred for j in said(workspace, collection)} == {c.id: sides(c)[0] for c in asked}


@pytest.mark.parametrize("sides_now", ["0,0", "0", "b,a", "0,1,2", "", "swapped", "text"])
def test_a_record_that_somebody_changed_is_not_guessed_at(workspace: Workspace, ann: Person, sides_now: str) -> None:
    collection = store(workspace, candidate(0))
    push(workspace, collection, quiet)
    (record,) = records(workspace, collection).values()
    ann.answer(record, preference="A")
    change: dict[str, Any] = {"external_id": candidate(0).id, "metadata": {"sides": sides_now}}
    if sides_now == "swapped":
        change["metadata"] = {"sides": record["metadata"]["sides"][::-1]}
    elif sides_now == "text":
        change = {"external_id": candidate(0).id, "fields": record["fields"] | {"response_a": "another answer"}}
    with connect(workspace) as argilla:
        (project,) = find_projects(argilla, collection)
        assert wire.send(argilla, project.id, [change]) == {}
    with pytest.raises(UserError, match="push --again"):
        pull(workspace, collection, quiet)
    push(workspace, collection, quiet, again=True)
    assert pull(workspace, collection, quiet).new == 1
    assert [j.preferred for j in said(workspace, collection)] == [sides(candidate(0))[0]]


def test_an_answer_that_can_not_be_kept_is_named(workspace: Workspace, ann: Person) -> None:
    collection = store(workspace, candidate(0))
    push(workspace, collection, quiet)
    (record,) = records(workspace, collection).values()
    ann.answer(record, preference="A", rewrite="x" * 1_000_001)
    with pytest.raises(UserError, match=f"answer of '{ann.name}': rewrite: .* at most 1000000 characters") as error:
        pull(workspace, collection, quiet)
    assert len(error.value.lines[0]) < 400
    ann.answer(record, preference="A", rewrite="x")
    assert pull(workspace, collection, quiet).new == 1


def test_labels_stay_with_their_response_whichever_order_it_is(workspace: Workspace, ann: Person) -> None:
    asked = [candidate(n, 3) for n in range(60)]
    assert {sides(c) for c in asked} == set(permutations(range(3)))
    collection = store(workspace, *asked)
    push(workspace, collection, quiet)
    there = records(workspace, collection)
    for c in asked[:12]:
        # Whatever the page's order, this rater puts "answer 2" first and "answer 0" last.
        best_first = {"answer 2": 1, "answer 1": 2, "answer 0": 3}
        fields = {name: text for name, text in there[c.id]["fields"].items() if name.startswith("response_")}
        ranking = [{"value": name, "rank": best_first[text[:8]]} for name, text in fields.items()]
        ann.answer(there[c.id], ranking=ranking)
    pull(workspace, collection, quiet)
    assert [j.ranking for j in said(workspace, collection)] == [((2,), (1,), (0,))] * 12
