"""Calibration figures against reference implementations, written out naively, and libraries."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score  # type: ignore[import-untyped]

from evaluation.calibration import (
    area_under_risk_coverage,
    auroc,
    brier_score,
    expected_calibration_error,
    risk_coverage,
)


def answers(seed: int, n: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    confidence = rng.choice([0.0, 0.1, 0.25, 0.7, 1.0], n) if ties else rng.random(n)
    return confidence, rng.random(n) < confidence


@pytest.mark.parametrize(("seed", "n", "ties"), [(0, 7, True), (1, 200, False), (2, 200, True)])
def test_calibration_error_is_the_papers_sum_over_bins(seed: int, n: int, ties: bool) -> None:
    confidence, right = answers(seed, n, ties)
    expected = 0.0
    for m in range(10):
        low, high = m / 10, (m + 1) / 10
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (m == 0 and c == 0)]
        if inside:
            gap = abs(np.mean([right[i] for i in inside]) - np.mean([confidence[i] for i in inside]))
            expected += len(inside) / n * gap
    assert expected_calibration_error(confidence, right) == pytest.approx(expected, abs=1e-12)


def test_perfect_and_worst_calibration() -> None:
    assert expected_calibration_error([1, 1, 0], [1, 1, 0]) == 0
    assert expected_calibration_error([1, 1], [0, 0]) == 1


def test_brier_is_scikit_learns() -> None:
    confidence, right = answers(3, 100, False)
    assert brier_score(confidence, right) == pytest.approx(brier_score_loss(right, confidence))


def test_risk_at_a_coverage_is_the_share_of_wrong_ones_among_the_surest() -> None:
    confidence, right = answers(4, 60, False)
    coverage, risk = risk_coverage(confidence, right)
    order = sorted(range(60), key=lambda i: -confidence[i])
    for k in (1, 13, 60):
        assert coverage[k - 1] == pytest.approx(k / 60)
        assert risk[k - 1] == pytest.approx(np.mean([not right[i] for i in order[:k]]))


def test_area_with_ties_is_the_mean_over_all_orders_of_the_tied() -> None:
    confidence, right = [0.9, 0.5, 0.5, 0.5, 0.1], [1, 0, 1, 0, 1]
    areas = []
    for tied in itertools.permutations([1, 2, 3]):
        wrong = [1 - right[i] for i in (0, *tied, 4)]
        areas.append(np.mean([sum(wrong[:k]) / k for k in range(1, 6)]))
    assert area_under_risk_coverage(confidence, right) == pytest.approx(np.mean(areas))


def test_area_of_a_confidence_that_says_nothing_is_the_error_rate() -> None:
    assert area_under_risk_coverage([0.5] * 4, [1, 0, 0, 1]) == pytest.approx(0.5)


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_scikit_learns(ties: bool) -> None:
    score, positive = answers(5, 80, ties)
    assert auroc(score, positive) == pytest.approx(roc_auc_score(positive, score))


def test_auroc_without_both_kinds_is_not_defined() -> None:
    assert auroc([0.1, 0.2], [1, 1]) is None
