"""feedback.sqlite: nothing twice, nothing lost, a changed mind replaces the earlier judgement."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from feedback.database import Database, Followed
from feedback.errors import UserError
from feedback.schema import Candidate, Demonstration, Judgement, Rater, Response, user_message
from feedback.workspace import Workspace

ANN = Rater(kind="human", name="ann")
CANDIDATE = Candidate(prompt=user_message("Why?"), responses=(Response(text="a"), Response(text="b")))


def judgement(preferred: int | str, **more: object) -> Judgement:
    return Judgement(candidate_id=CANDIDATE.id, rater=ANN, source="test", preferred=preferred, **more)


def test_the_same_records_twice_are_one(workspace: Workspace) -> None:
    demonstration = Demonstration(prompt=user_message("Why?"), completion="So.", provenance="test")
    with Database(workspace.database) as database:
        first = database.add("main", [CANDIDATE], [judgement(0)], [demonstration])
        again = database.add("main", [CANDIDATE], [judgement(0)], [demonstration])
        assert (first.candidates, first.judgements, first.demonstrations, first.known) == (1, 1, 1, 0)
        assert (again.candidates, again.judgements, again.demonstrations, again.known) == (0, 0, 0, 3)
        assert database.collections() == {"main": {"candidates": 1, "judgements": 1, "demonstrations": 1}}


def test_a_changed_mind_stands_and_the_earlier_one_is_kept_as_withdrawn(workspace: Workspace) -> None:
    first, second, third = judgement(0), judgement(1), judgement(0)
    with Database(workspace.database) as database:
        for each in (first, second, third):
            database.add("main", [CANDIDATE], [each])
        assert [j.id for j in database.judgements(["main"])] == [third.id]
        withdrawn = database.find_judgement(first.id)
        assert withdrawn is not None
        assert withdrawn.withdrawn_at is not None


def test_raters_sources_and_principles_stand_beside_each_other(workspace: Workspace) -> None:
    others = [
        judgement(0),
        Judgement(candidate_id=CANDIDATE.id, rater=Rater(kind="ai", name="ann"), source="test", preferred=1),
        Judgement(candidate_id=CANDIDATE.id, rater=ANN, source="compare-app", preferred=1),
        judgement(1, principle="be honest"),
    ]
    with Database(workspace.database) as database:
        database.add("main", [CANDIDATE], others)
        assert len(list(database.judgements(["main"]))) == 4


def test_a_write_that_fails_leaves_nothing(workspace: Workspace) -> None:
    stray = Judgement(candidate_id="0" * 64, rater=ANN, source="test", preferred=0)
    with Database(workspace.database) as database:
        with pytest.raises(sqlite3.IntegrityError):
            database.add("main", [CANDIDATE], [judgement(0), stray])
        assert database.collections() == {}


def test_collections_are_apart(workspace: Workspace) -> None:
    with Database(workspace.database) as database:
        database.add("one", [CANDIDATE], [judgement(0)])
        database.add("two", [CANDIDATE], [judgement(1)])
        assert [j.preferred for j in database.judgements(["one"])] == [0]
        assert [j.preferred for j in database.judgements(["one", "two"])] == [0, 1]
        assert list(database.candidates(["three"])) == []


def test_what_is_no_database_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "feedback.sqlite"
    path.write_text("not a database, but long enough to be read as one" * 20)
    with pytest.raises(UserError, match=r"feedback\.sqlite: can't be read as a feedback database"):
        Database(path)


def test_a_newer_schema_is_refused(workspace: Workspace) -> None:
    Database(workspace.database).__exit__()
    with sqlite3.connect(workspace.database) as db:
        db.execute("INSERT INTO migrations VALUES ('9999_from_the_future', '')")
    db.close()
    with pytest.raises(UserError, match="9999_from_the_future"):
        Database(workspace.database)


def test_an_ambiguous_prefix_asks_for_more(workspace: Workspace) -> None:
    with Database(workspace.database) as database:
        database.add("one", [CANDIDATE], [judgement(0)])
        database.add("two", [CANDIDATE], [judgement(1)])
        with pytest.raises(UserError, match="several ids begin with it"):
            database.find_judgement("")
        assert database.find_judgement("no such id") is None


def test_a_source_is_followed_in_what_it_adds_changes_and_takes_back(workspace: Workspace) -> None:
    other = Candidate(prompt=user_message("How?"), responses=(Response(text="a"), Response(text="b")))
    on_other = Judgement(candidate_id=other.id, rater=ANN, source="test", preferred=1)
    vote = Judgement(candidate_id=CANDIDATE.id, rater=ANN, source="compare-app", preferred=1)
    with Database(workspace.database) as database:
        database.add("main", [CANDIDATE, other], [vote])
        assert database.follow("main", "test", [judgement(0), on_other]) == Followed(new=2)
        assert database.follow("main", "test", [judgement(0), on_other]) == Followed(unchanged=2)
        assert database.follow("main", "test", [judgement("tie")]) == Followed(changed=1, withdrawn=1)
        assert {j.preferred for j in database.judgements(["main"])} == {1, "tie"}
        assert database.follow("main", "test", []) == Followed(withdrawn=1)
        assert list(database.judgements(["main"])) == [vote]


def test_what_is_taken_back_and_said_again_stands_again(workspace: Workspace) -> None:
    said = judgement(0)
    with Database(workspace.database) as database:
        database.add("main", [CANDIDATE])
        for judgements in ([said], [], [said]):
            database.follow("main", "test", judgements)
        assert list(database.judgements(["main"])) == [said]


def test_a_draft_is_kept_and_is_no_judgement_until_it_is_submitted(workspace: Workspace) -> None:
    draft, done = judgement(0, status="draft"), judgement(0)
    with Database(workspace.database) as database:
        database.add("main", [CANDIDATE], [draft])
        assert list(database.judgements(["main"])) == []
        assert list(database.judgements(["main"], "draft")) == [draft]
        assert database.collections()["main"]["judgements"] == 0
        database.add("main", [CANDIDATE], [done])
        assert list(database.judgements(["main"])) == [done]
        assert list(database.judgements(["main"], "draft")) == []


def test_ids_are_what_they_were_before_there_were_spans_and_states() -> None:
    early = Judgement(
        candidate_id="0" * 64, rater=ANN, source="test", preferred=1, created_at=datetime(2026, 11, 23, tzinfo=UTC)
    )
    assert early.id == "6a89da07b4dc96cab3906765fe353aafb5eac7e351a93751a195eaf6b7862b75"
    drafted = Judgement.model_validate(early.model_dump() | {"status": "draft"})
    assert drafted.verdict != early.verdict


def test_what_was_pushed_is_known_for_each_destination(workspace: Workspace) -> None:
    with Database(workspace.database) as database:
        database.mark_pushed("one", ["a", "b"])
        database.mark_pushed("one", ["b", "c"])
        assert database.pushed("one") == {"a", "b", "c"}
        assert database.pushed("two") == set()


def test_a_candidate_is_complete_when_enough_people_judged_it_and_is_counted_once(workspace: Workspace) -> None:
    bob, judge = Rater(kind="human", name="bob"), Rater(kind="ai", name="judge")
    by_bob = Judgement(candidate_id=CANDIDATE.id, rater=bob, source="test", preferred=1)
    by_judge = Judgement(candidate_id=CANDIDATE.id, rater=judge, source="test", preferred=1)
    with Database(workspace.database) as database:
        database.add("main", [CANDIDATE], [judgement(0), by_judge])
        assert database.completed_since("main", 0, 2)[0] == 0
        assert database.completed_since("main", 0, 1)[0] == 1
        database.add("main", judgements=[by_bob])
        completed, position = database.completed_since("main", 0, 2)
        assert completed == 1
        assert database.completed_since("main", position, 2) == (0, position)
        database.add("main", judgements=[judgement("tie")])
        assert database.completed_since("main", position, 2)[0] == 1
        database.add("main", judgements=[judgement("tie", status="draft")])
        assert database.completed_since("main", 0, 2)[0] == 0
