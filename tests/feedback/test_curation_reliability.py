"""How reliable raters are: the reference package's figures on real raters, and planted accuracies found again."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feedback.curation.aggregate import Vote
from feedback.curation.dawid_skene import Ballots, RaterModel, accuracy_intervals, fit
from feedback.curation.reliability import Reliability, pattern_of


def ballots(said: np.ndarray) -> Ballots:
    """One item a row, one rater a column, a label a cell; -1 where the rater said nothing."""
    items, raters = np.nonzero(said >= 0)
    return Ballots(items, raters, said[items, raters], np.ones(len(said)))


def packed(said: np.ndarray) -> Ballots:
    """The same with equal rows as one item."""
    rows, times = np.unique(said, axis=0, return_counts=True)
    return replace(ballots(rows), times=times.astype(float))


def votes(*for_first: float | None) -> list[Vote]:
    return [Vote(f"rater {i} (human)", "human", p, False, f"{i}") for i, p in enumerate(for_first) if p is not None]


@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
def test_three_real_annotators_come_out_as_in_crowd_kit(shared_data: Path) -> None:
    from crowdkit.aggregation import DawidSkene

    rows = [json.loads(line) for line in (shared_data / "pandalm" / "human_pairs.jsonl").read_text().splitlines()]
    said = np.array([[row[f"annotator{k}"] for k in (1, 2, 3)] for row in rows])
    items, raters = np.nonzero(said >= 0)
    table = pd.DataFrame({"task": items, "worker": raters, "label": said[items, raters]})
    reference = DawidSkene(n_iter=30, tol=-1).fit(table)

    model = fit(ballots(said), 3, 3, tolerance=1e-13)
    posterior = model.posterior(ballots(said))
    assert np.abs(posterior - reference.probas_.sort_index()[[0, 1, 2]].to_numpy()).max() < 1e-6
    assert np.abs(model.prior - reference.priors_.loc[[0, 1, 2]].to_numpy()).max() < 1e-6
    expected = np.array([[[reference.errors_.loc[(k, s), t] for s in range(3)] for t in range(3)] for k in range(3)])
    assert np.abs(model.confusion - expected).max() < 1e-6


def simulated(items: int, accuracies: tuple[float, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, items)
    right = rng.random((items, len(accuracies))) < accuracies
    return truth, np.where(right, truth[:, None], 1 - truth[:, None])


def test_planted_accuracies_lie_in_their_intervals_and_the_verdicts_beat_the_majority() -> None:
    planted = (0.95, 0.85, 0.7, 0.6, 0.55)
    covered = 0
    for seed in range(4):
        truth, said = simulated(3_000, planted, seed)
        found = packed(said)
        model = fit(found, len(planted), 2, mirrored=(1, 0))
        assert model.converged
        assert model.accuracy == pytest.approx(planted, abs=0.03)
        assert (np.diff(model.likelihood) > -1e-9).all()
        intervals = accuracy_intervals(found, model, mirrored=(1, 0), seed=seed)
        covered += sum(low <= p <= high for p, (low, high) in zip(planted, intervals, strict=True))
        verdicts = model.posterior(ballots(said)).argmax(axis=1)
        majority = said.mean(axis=1) > 0.5
        assert (verdicts == truth).mean() > (majority == truth).mean() + 0.02
    # 19 of 20 is what 95% means; 15 or fewer would come by chance once in 390 times.
    assert covered >= 16


def test_equal_ballots_count_as_often_as_they_came() -> None:
    _, said = simulated(500, (0.9, 0.8, 0.7), 1)
    whole, once = fit(ballots(said), 3, 2), fit(packed(said), 3, 2)
    assert once.confusion == pytest.approx(whole.confusion, abs=1e-9)
    assert once.votes.tolist() == [500, 500, 500]


def test_mirrored_is_the_estimate_of_all_items_both_ways_round() -> None:
    _, said = simulated(400, (0.9, 0.8, 0.7), 2)
    doubled = fit(ballots(np.concatenate((said, 1 - said))), 3, 2, tolerance=1e-13)
    mirrored = fit(ballots(said), 3, 2, mirrored=(1, 0), tolerance=1e-13)
    assert mirrored.confusion == pytest.approx(doubled.confusion, abs=1e-6)
    assert mirrored.confusion[:, 0, 0] == pytest.approx(mirrored.confusion[:, 1, 1])


def test_a_good_rater_outvotes_two_bad_ones() -> None:
    _, said = simulated(4_000, (0.95, 0.65, 0.65, 0.65), 3)
    patterns = Counter(pattern_of(votes(*(float(label == 0) for label in row))) for row in said)
    reliability = Reliability(patterns)
    assert reliability.pairs == 4_000
    posterior = reliability.posterior(votes(1.0, 0.0, 0.0))
    assert posterior is not None
    assert posterior[0] > 0.6
    assert sum(posterior) == pytest.approx(1)
    mirrored = reliability.posterior(votes(0.0, 1.0, 1.0))
    assert mirrored is not None
    assert mirrored[1] == pytest.approx(posterior[0])
    alone = reliability.posterior(votes(1.0))
    assert alone is not None
    assert alone[0] == pytest.approx(0.95, abs=0.03)


def test_a_rater_whom_nobody_can_be_compared_with_gets_no_posterior() -> None:
    _, said = simulated(200, (0.9, 0.8, 0.7), 4)
    reliability = Reliability(Counter(pattern_of(votes(*(float(label == 0) for label in row))) for row in said))
    assert reliability.posterior(votes(1.0, None, None, 1.0)) is None
    assert reliability.posterior(votes(None, None, None, 1.0)) is None


def test_how_sure_a_rater_was_does_not_count_but_a_tie_does() -> None:
    assert pattern_of(votes(0.6, 0.4, 0.5)) == pattern_of(votes(1.0, 0.0, 0.5))
    assert pattern_of(votes(0.5)) != pattern_of(votes(0.6))
    assert pattern_of([*votes(1.0), *votes(0.6)]) == pattern_of(votes(1.0))


def test_a_rater_without_votes_has_no_accuracy() -> None:
    model = RaterModel(np.array([0.5, 0.5]), np.full((1, 2, 2), 0.5), np.zeros((1, 2, 2)))
    assert np.isnan(model.accuracy).all()
