"""How much the judges leave open: in the order of vote entropy, whoever the judges are."""

import random
from statistics import fmean
from typing import Literal

import pytest
from scipy.stats import entropy

from feedback.curation.uncertainty import by_a_judge, uncertainty
from feedback.schema import REVISION, TIE, Candidate, Judgement, Rater, Response, user_message

PAIR = Candidate(prompt=user_message("?"), responses=(Response(text="a"), Response(text="b")))
THREE = Candidate(prompt=user_message("?"), responses=tuple(Response(text=text) for text in "abc"))


def said(
    for_first: float,
    name: str = "m",
    kind: Literal["human", "ai", "script"] = "ai",
    source: str = "constitution",
    principle: str | None = None,
) -> Judgement:
    return Judgement(
        candidate_id=PAIR.id,
        rater=Rater(kind=kind, name=name),
        source=source,
        principle=principle,
        preferred=TIE if for_first == 0.5 else int(for_first < 0.5),
        probability=max(for_first, 1 - for_first),
    )


@pytest.mark.parametrize(
    ("stated", "expected"),
    [((1.0,), 0.0), ((0.5,), 1.0), ((0.9,), 0.2), ((0.1,), 0.2), ((1.0, 0.0), 1.0), ((0.9, 0.7, 0.8), 0.4), ((), 1.0)],
)
def test_what_judges_doubt_or_dispute_is_open(stated: tuple[float, ...], expected: float) -> None:
    assert uncertainty(PAIR, [said(p, f"m{i}") for i, p in enumerate(stated)]) == pytest.approx(expected)


def test_pairs_stand_in_the_order_of_the_entropy_of_the_votes() -> None:
    rng = random.Random(0)
    votes = [[rng.choice((0.0, 1.0)) for _ in range(7)] for _ in range(40)]
    committees = [[said(p, f"m{i}") for i, p in enumerate(each)] for each in votes]
    by_entropy = [float(entropy([fmean(each), 1 - fmean(each)], base=2)) for each in votes]
    ours = [uncertainty(PAIR, committee) for committee in committees]
    assert sorted(range(40), key=lambda n: (round(by_entropy[n], 9), n)) == sorted(
        range(40), key=lambda n: (ours[n], n)
    )


def test_a_judge_counts_once_whatever_the_number_of_principles() -> None:
    once = [said(0.0, "other"), said(1.0)]
    by_principles = [said(0.0, "other"), *(said(1.0, principle=f"p{i}") for i in range(3))]
    assert uncertainty(PAIR, once) == uncertainty(PAIR, by_principles) == 1.0


def test_people_scripts_and_what_is_only_supposed_say_nothing_of_the_judges() -> None:
    for other in (said(1.0, kind="human"), said(1.0, kind="script"), said(1.0, source=REVISION)):
        assert not by_a_judge(other)
        assert uncertainty(PAIR, [other]) == 1.0
        assert uncertainty(PAIR, [other, said(0.8)]) == pytest.approx(0.4)


def test_of_more_answers_the_mean_over_all_pairs_counts() -> None:
    rater = Rater(kind="ai", name="m")
    ranked = Judgement(candidate_id=THREE.id, rater=rater, source="s", ranking=((1,), (0, 2)), probability=0.9)
    assert uncertainty(THREE, [ranked]) == pytest.approx((0.2 + 0.2 + 1) / 3, abs=1e-3)
    assert uncertainty(THREE, []) == 1.0


def test_equal_answers_leave_nothing_open() -> None:
    same = Candidate(prompt=user_message("?"), responses=(Response(text="a"), Response(text="a", model="other")))
    assert uncertainty(same, []) == 0.0
    two_of_three = Candidate(prompt=user_message("?"), responses=tuple(Response(text=text) for text in "aab"))
    assert uncertainty(two_of_three, []) == 1.0
