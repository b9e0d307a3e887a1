"""From judgements to pairs: votes, ties, conflicts, rewrites and splits."""

import json
from collections.abc import Sequence

import pytest

from feedback.curation.aggregate import PairKey, Vote, decide, pairwise_votes, votes_on
from feedback.curation.build import build
from feedback.curation.splits import parse_fractions, split_of
from feedback.database import Database
from feedback.errors import UserError
from feedback.schema import Candidate, Judgement, PreferencePair, Rater, Response, user_message
from feedback.workspace import Workspace


def candidate(*answers: str, prompt: str = "Why?", context: str | None = None) -> Candidate:
    responses = tuple(Response(text=answer) for answer in answers)
    return Candidate(prompt=user_message(prompt), context=context, responses=responses)


def vote(of: Candidate, rater: str, preferred: int | str | None = None, **more: object) -> Judgement:
    return Judgement(
        candidate_id=of.id, rater=Rater(kind="human", name=rater), source="test", preferred=preferred, **more
    )


def decided(candidates: Sequence[Candidate], judgements: Sequence[Judgement]) -> list[PreferencePair | str]:
    by_id = {candidate.id: candidate for candidate in candidates}
    votes: dict[PairKey, list[Vote]] = {}
    for judgement in judgements:
        for key, vote in votes_on(by_id[judgement.candidate_id], judgement):
            votes.setdefault(key, []).append(vote)
    return [decide(key, of_pair) for key, of_pair in votes.items()]


def test_a_majority_becomes_a_probability() -> None:
    c = candidate("good", "bad")
    (pair,) = decided([c], [vote(c, "ann", 0), vote(c, "bob", 0), vote(c, "cid", "tie")])
    assert isinstance(pair, PreferencePair)
    assert (pair.chosen, pair.rejected) == ("good", "bad")
    assert pair.probability == pytest.approx((1 + 1 + 0.5) / 3)
    assert len(pair.judgements) == 3


def test_a_rater_has_one_voice_however_often_it_spoke() -> None:
    c = candidate("good", "bad")
    judge = Rater(kind="ai", name="m")
    by_principles = [
        Judgement(
            candidate_id=c.id, rater=judge, source="constitution", principle=f"p{n}", preferred=1, probability=0.8
        )
        for n in range(9)
    ]
    (pair,) = decided([c], [vote(c, "ann", 0), *by_principles])
    assert isinstance(pair, PreferencePair)
    assert (pair.chosen, pair.probability) == ("good", pytest.approx((1 + 0.2) / 2))
    assert len(pair.judgements) == 10
    assert decided([c], [vote(c, "ann", 0), vote(c, "ann", 0), vote(c, "bob", 1)]) == ["conflict"]
    twice_bad = [vote(c, "ann", "both bad"), vote(c, "ann", "both bad"), vote(c, "bob", 0), vote(c, "cid", 0)]
    assert isinstance(decided([c], twice_bad)[0], PreferencePair)


def test_the_order_of_answers_does_not_make_two_pairs() -> None:
    one, other = candidate("x", "y"), candidate("y", "x")
    (pair,) = decided([one, other], [vote(one, "ann", 0), vote(other, "bob", 1)])
    assert isinstance(pair, PreferencePair)
    assert (pair.chosen, pair.probability) == ("x", 1.0)
    (conflict,) = decided([one, other], [vote(one, "ann", 0), vote(other, "bob", 0)])
    assert conflict == "conflict"


@pytest.mark.parametrize(
    ("answers", "preferred", "reason"),
    [
        (("x", "y"), "tie", "tie"),
        (("x", "y"), "both bad", "both bad"),
        (("x", "x"), 0, "identical answers"),
        ((" ", "y"), 0, "empty chosen answer"),
    ],
)
def test_what_makes_no_pair_has_a_reason(answers: tuple[str, str], preferred: int | str, reason: str) -> None:
    c = candidate(*answers)
    assert decided([c], [vote(c, "ann", preferred)]) == [reason]


def test_a_ranking_of_four_makes_all_six_pairs() -> None:
    c = candidate("a", "b", "c", "d")
    stated = set(pairwise_votes(c, vote(c, "ann", ranking=((2,), (0, 3), (1,)))))
    assert stated == {(2, 0, 1.0), (2, 3, 1.0), (2, 1, 1.0), (0, 1, 1.0), (3, 1, 1.0), (0, 3, 0.5)}


def test_an_index_outside_the_answers_is_an_error() -> None:
    c = candidate("a", "b")
    with pytest.raises(ValueError, match="response 2 is preferred, there are 2"):
        list(pairwise_votes(c, vote(c, "ann", 2)))


def test_build_accounts_for_every_pair_and_writes_down_what_it_set_aside(workspace: Workspace) -> None:
    good, tied = candidate("g", "h", prompt="1?"), candidate("t", "u", prompt="2?")
    rewritten = candidate("w", "v", prompt="3?", context="The sky is green.")
    judgements = [vote(good, "ann", 0), vote(tied, "ann", "tie"), vote(rewritten, "ann", 1, rewrite="green")]
    with Database(workspace.database) as database:
        database.add("main", [good, tied, rewritten], judgements)
    version, new = build(workspace, "d", fractions=(1, 0, 0))
    assert new
    assert version.summary["pairs"] == 2
    assert version.summary["demonstrations"] == 1
    assert version.summary["dropped"] == {"tie": 1}
    (aside,) = (json.loads(line) for line in (version.folder / "set_aside.jsonl").read_text().splitlines())
    assert aside["reason"] == "tie"
    assert aside["judgements"] == [judgements[1].id]
    (demonstration,) = version.demonstrations("train")
    assert demonstration["prompt"][-1]["content"] == "The sky is green.\n\n3?"
    assert demonstration["provenance"] == f"rewrite:{judgements[2].id}"
    assert version.judgement_ids == {judgements[0].id, judgements[2].id}


def test_a_judgement_on_what_cannot_be_voted_on_makes_no_vote() -> None:
    alone = candidate("only")
    assert decided([alone], [vote(alone, "ann", rewrite="better")]) == []


def test_build_names_what_is_missing(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="nothing to build from"):
        build(workspace, "d")
    with pytest.raises(UserError, match="collection 'x': not here; there are none"):
        build(workspace, "d", ["x"])


def test_splits_keep_prompts_together_and_follow_the_shares() -> None:
    shares = parse_fractions("0.7,0.1,0.2")
    counts = {"train": 0, "validation": 0, "test": 0}
    for number in range(4000):
        counts[split_of(user_message(f"question {number}"), shares)] += 1
    assert counts["train"] == pytest.approx(2800, abs=120)
    assert counts["validation"] == pytest.approx(400, abs=80)
    assert split_of(user_message("Who  IS it?"), shares) == split_of(user_message("who is it?"), shares)


@pytest.mark.parametrize("text", ["0.8", "0.8,0.3,0.1", "a,b,c", "1.2,-0.1,-0.1"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="sum to 1"):
        parse_fractions(text)
