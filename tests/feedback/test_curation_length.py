"""Length bias: the figures by other means, and pairs from which length tells nothing any more."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, pearsonr

from feedback.curation.length import balance, length_bias, length_histogram
from feedback.curation.rows import Rows
from feedback.schema import PreferencePair, user_message


def rows_of(folder: Path, lengths: list[tuple[int, int, float]]) -> Rows:
    rows = Rows(folder / "rows.sqlite", (1, 0, 0))
    for number, (chosen, rejected, probability) in enumerate(lengths):
        rows.add(
            PreferencePair(
                prompt=user_message(f"{number}?"),
                chosen="c" * chosen,
                rejected="r" * rejected,
                probability=probability,
                judgements=("j",),
            )
        )
    rows.sort()
    return rows


def biased(n: int, seed: int) -> list[tuple[int, int, float]]:
    rng = random.Random(seed)
    lengths = []
    for _ in range(n):
        short = rng.randint(1, 200)
        long = short + rng.choice((0, 1, rng.randint(1, 300)))
        ends = (long, short) if rng.random() < 0.7 else (short, long)
        lengths.append((*ends, rng.choice((0.5, 2 / 3, 0.8, 1.0))))
    return lengths


def test_the_figures_are_those_of_the_reference_packages(tmp_path: Path) -> None:
    lengths = biased(500, 0)
    found = length_bias(rows_of(tmp_path, lengths))
    assert found is not None
    difference = np.array([chosen - rejected for chosen, rejected, _ in lengths])
    margin = np.array([2 * p - 1 for *_, p in lengths])
    assert found.difference == pytest.approx(difference.mean())
    error = 1.959964 * difference.std() / 500**0.5
    assert found.difference_interval == pytest.approx((difference.mean() - error, difference.mean() + error))
    longer, unequal = int((difference > 0).sum()), int((difference != 0).sum())
    assert (found.n, found.unequal, found.longer) == (500, unequal, longer / unequal)
    wilson = binomtest(longer, unequal).proportion_ci(method="wilson")
    assert found.longer_interval == pytest.approx((wilson.low, wilson.high), abs=1e-6)
    both_ways = pearsonr(np.concatenate((difference, -difference)), np.concatenate((margin, -margin)))
    assert found.correlation == pytest.approx(both_ways.statistic)


def test_balanced_pairs_leave_nothing_to_learn_from_length(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, biased(2_000, 1))
    before = length_bias(rows)
    balance(rows)
    after = length_bias(rows)
    assert before is not None
    assert after is not None
    assert before.longer is not None
    assert before.longer > 0.65
    assert after.longer == 0.5
    assert abs(after.difference) < abs(before.difference) / 5
    assert abs(after.correlation or 0) < 0.1
    counts = dict(length_histogram(rows))
    assert counts["+1"] == counts["-1"]
    assert counts["+64 to +127"] == counts["-127 to -64"]
    # No more go than each band has too many of.
    surplus: Counter[int] = Counter()
    for chosen, rejected, _ in biased(2_000, 1):
        surplus[abs(chosen - rejected).bit_length()] += (chosen > rejected) - (chosen < rejected)
    assert before.n - after.n == sum(map(abs, surplus.values()))


def test_what_goes_does_not_depend_on_the_order_in_which_pairs_came(tmp_path: Path) -> None:
    left = []
    for name, seed in (("one", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        lengths = list(enumerate(biased(300, 2)))
        random.Random(seed).shuffle(lengths)
        rows = Rows(tmp_path / name / "rows.sqlite", (1, 0, 0))
        for number, (chosen, rejected, probability) in lengths:
            texts = {"chosen": "c" * chosen, "rejected": "r" * rejected}
            prompt = user_message(f"{number}?")
            rows.add(PreferencePair(prompt=prompt, probability=probability, judgements=("j",), **texts))
        rows.sort()
        balance(rows)
        left.append([row.turns for row in rows.standing("pairs")])
    assert left[0] == left[1]


def test_pairs_of_equal_length_have_no_share_and_no_correlation(tmp_path: Path) -> None:
    found = length_bias(rows_of(tmp_path, [(5, 5, 1.0), (7, 7, 0.8)]))
    assert found is not None
    assert (found.unequal, found.longer, found.correlation) == (0, None, None)
    assert found.difference_interval == (0, 0)
    assert length_bias(Rows(tmp_path / "none.sqlite", (1, 0, 0))) is None
