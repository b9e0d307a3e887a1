"""AI judges against people: confusion, kappa and calibration as the reference packages have them."""

import random

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, cohen_kappa_score, confusion_matrix

from feedback.curation.aggregate import Vote
from feedback.curation.agreement import AgainstPeople, said_of_pair


def vote(rater: str, for_first: float, kind: str = "human", both_bad: bool = False) -> Vote:
    return Vote(f"{rater} ({kind})", kind, for_first, both_bad, f"{rater}{for_first}")


def test_confusion_kappa_and_calibration_equal_the_reference_packages() -> None:
    rng = random.Random(0)
    against, people, judged = AgainstPeople(), [], []
    for _ in range(1_000):
        truth = rng.choice((0.0, 0.5, 1.0, 1.0, 0.0))
        stated = (
            0.5 if rng.random() < 0.1 else round(rng.betavariate(4, 2) if truth > 0.4 else rng.betavariate(2, 4), 3)
        )
        against.add([vote("ann", truth), vote("m", stated, "ai")])
        people.append(truth)
        judged.append(stated)
    (found,) = against.result()
    labels = ["first", "second", "tie"]
    said = [["tie" if p == 0.5 else "first" if p > 0.5 else "second" for p in side] for side in (people, judged)]
    assert np.array(found.cells).tolist() == confusion_matrix(*said, labels=labels).tolist()
    assert found.kappa == pytest.approx(cohen_kappa_score(*said), abs=1e-9)
    same = sum(a == b for a, b in zip(*said, strict=True))
    wilson = binomtest(same, 1_000).proportion_ci(method="wilson")
    assert (found.n, found.agreed) == (1_000, same / 1_000)
    assert found.agreed_interval == pytest.approx((wilson.low, wilson.high), abs=1e-6)

    both = [(p, truth) for p, truth in zip(judged, people, strict=True) if 0.5 not in (p, truth)]
    sure = [(max(p, 1 - p), int((p > 0.5) == (truth > 0.5))) for p, truth in both]
    assert found.decided == len(both)
    assert found.brier == pytest.approx(brier_score_loss([right for _, right in sure], [p for p, _ in sure]))
    assert found.brier_interval is not None
    assert found.brier_interval[0] < found.brier < found.brier_interval[1]
    assert sum(c.n for c in found.calibration) == len(both)
    for c in found.calibration:
        inside = [(p, right) for p, right in sure if c.low <= p and (p < c.high or c.high == 1.0)]
        assert (c.n, c.stated, c.right) == (
            len(inside),
            pytest.approx(np.mean([p for p, _ in inside])),
            pytest.approx(np.mean([right for _, right in inside])),
        )


def test_the_mean_of_several_people_and_of_several_principles_counts() -> None:
    against = AgainstPeople()
    people = [vote("ann", 1.0), vote("bob", 1.0), vote("cid", 0.0)]
    against.add([*people, vote("m", 0.9, "ai"), vote("m", 0.4, "ai"), vote("other", 0.3, "ai")])
    # A script stands in for a person; a pair that nobody else judged tells nothing.
    against.add([vote("imitator", 0.0, "script"), vote("m", 0.2, "ai")])
    against.add([vote("m", 0.2, "ai")])
    found = {judge.judge: judge for judge in against.result()}
    assert found["m (ai)"].cells == ((1, 0, 0), (0, 1, 0), (0, 0, 0))
    assert [(c.low, c.n, c.right) for c in found["m (ai)"].calibration] == [(0.6, 1, 1.0), (0.8, 1, 1.0)]
    assert found["other (ai)"].cells == ((0, 1, 0), (0, 0, 0), (0, 0, 0))
    assert (found["other (ai)"].agreed, found["other (ai)"].brier) == (0, pytest.approx(0.49))


def test_a_pair_on_which_a_judge_is_undecided_has_no_calibration() -> None:
    against = AgainstPeople()
    against.add([vote("ann", 0.5), vote("m", 0.5, "ai")])
    (found,) = against.result()
    assert (found.agreed, found.kappa, found.decided, found.brier, found.calibration) == (1, None, 0, None, ())


def test_what_raters_said_of_a_pair_is_one_word_each() -> None:
    said = said_of_pair([vote("ann", 1.0), vote("ann", 0.4), vote("bob", 0.5, both_bad=True), vote("cid", 0.5)])
    assert said == {"ann (human)": "first", "bob (human)": "both bad", "cid (human)": "tie"}
