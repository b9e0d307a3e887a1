"""Calibration in a report: each figure on both models over the answers they attempted, with paired intervals."""

from typing import Any

import pytest

from evaluation.confidence import calibrations
from evaluation.plots import reliability
from evaluation.results import Sample


def sample(number: int, base: tuple[float, str], tuned: tuple[float, str], **given: Any) -> Sample:
    fields: dict[str, Any] = {
        "task": "held_out",
        "item": str(number),
        "cluster": str(number),
        "prompt": "?",
        "reference": ("a",),
        "base_answer": "",
        "tuned_answer": "",
    }
    fields |= {"base_confidence": base[0], "base_outcome": base[1]}
    fields |= {"tuned_confidence": tuned[0], "tuned_outcome": tuned[1]}
    return Sample.model_validate(fields | given)


SAMPLES = [
    sample(0, (0.9, "correct"), (0.9, "correct")),
    sample(1, (0.9, "incorrect"), (0.2, "abstained")),
    sample(2, (0.3, "incorrect"), (0.4, "incorrect"), reference=()),
    sample(3, (0.5, "correct"), (0.8, "correct")),
]


def test_figures_are_those_counted_by_hand() -> None:
    found = {each.figure: each for each in calibrations(SAMPLES)}
    error, brier, area, auroc = found.values()
    # Base: two at 0.9, one right; 0.3 wrong; 0.5 right. Tuned: 0.9 right, 0.4 wrong, 0.8 right; the abstention is out.
    assert error.base == pytest.approx((2 * 0.4 + 0.3 + 0.5) / 4)
    assert error.tuned == pytest.approx((0.1 + 0.4 + 0.2) / 3)
    assert brier.base == pytest.approx((0.01 + 0.81 + 0.09 + 0.25) / 4)
    assert brier.tuned == pytest.approx((0.01 + 0.16 + 0.04) / 3)
    # Base: of the two at 0.9 half are wrong, then 1 of 3, then 2 of 4. Tuned: 0, 0, then 1 of 3.
    assert area.base == pytest.approx((1 / 2 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert area.tuned == pytest.approx(1 / 9)
    # Of base's 4 pairs of right and wrong: 0.9 against 0.9 and 0.3, 0.5 against both.
    assert auroc.base == pytest.approx((0.5 + 1 + 0 + 1) / 4)
    assert (auroc.tuned, auroc.higher_is_better) == (1, True)
    assert error.difference == pytest.approx((error.tuned or 0) - (error.base or 0))
    assert (error.n, error.base_attempted, error.tuned_attempted) == (4, 4, 3)
    assert all(each.base_interval is not None for each in found.values())


def test_a_model_against_itself_differs_in_nothing() -> None:
    same = [
        sample(n, (0.1 * n, "correct" if n % 3 else "incorrect"), (0.1 * n, "correct" if n % 3 else "incorrect"))
        for n in range(10)
    ]
    for each in calibrations(same):
        assert (each.difference, each.difference_interval) == (0, (0, 0))


def test_a_model_that_attempts_nothing_has_no_calibration() -> None:
    silent = [sample(n, (0.5, "correct"), (0.5, "abstained")) for n in range(3)]
    for each in calibrations(silent):
        assert (each.tuned, each.tuned_interval, each.difference, each.tuned_attempted) == (None, None, None, 0)
    assert calibrations([sample(0, (0.5, "abstained"), (0.5, "abstained"))]) == []
    (plot,) = reliability(silent)
    assert plot.tuned == ()


def test_the_diagram_shows_each_bin_where_its_answers_are() -> None:
    (plot,) = reliability(SAMPLES)
    assert [(bin_.n, round(bin_.confidence), bin_.accuracy) for bin_ in plot.base] == [
        (1, 30, 0),
        (1, 50, 100),
        (2, 90, 50),
    ]
    # 0.9 is in the bin up to 0.9, 0.8 in the one below.
    assert [(bin_.n, round(bin_.confidence)) for bin_ in plot.tuned] == [(1, 40), (1, 80), (1, 90)]
    assert all(bin_.low <= bin_.accuracy <= bin_.high for bin_ in plot.base)
