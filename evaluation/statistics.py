"""Paired comparison of two models on the same items, with prompts as the independent units.

A difference is always tuned minus base. Items that share a cluster (a prompt) are resampled or flipped together.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, cast

from feedback.schema import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

ALPHA = 0.05
RESAMPLES = 10_000
# Bounds the memory of one batch of resamples to some tens of megabytes, however many clusters there are.
BATCH_CELLS = 2_000_000

Values = Sequence[float | None]
Clusters = Sequence[Hashable]


class Comparison(Record):
    """One metric of one task on both models, over the `n` items where both have it.

    `model` says which tuned model it is of where a report has several.
    `ci_low` and `ci_high` bound the difference; they are None where one cluster alone says nothing of the spread.
    `p_holm` is None until `with_holm` has seen the whole family.
    """

    task: str
    metric: str
    n: int
    base: float
    tuned: float
    difference: float
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None = None
    detectable: float | None = None
    higher_is_better: bool = True
    slice: str | None = None
    model: str | None = None

    @property
    def name(self) -> str:
        of = f"{self.model}, " if self.model else ""
        return f"{of}{self.task}: {self.metric}" + (f" ({self.slice})" if self.slice else "")

    @property
    def verdict(self) -> str:
        """`better` or `worse` where the Holm-adjusted p is below 0.05, else `unclear`."""
        if self.p_holm is None or self.p_holm >= ALPHA:
            return "unclear"
        return "better" if (self.difference > 0) == self.higher_is_better else "worse"


def compare(
    task: str,
    metric: str,
    base_values: Values,
    tuned_values: Values,
    clusters: Clusters,
    higher_is_better: bool,
    slice_name: str | None = None,
) -> Comparison | None:
    """Compare two models on one metric, or return None where no item has it on both sides.

    Right/wrong values with one item a cluster get the exact McNemar test; all others, right/wrong values that share
    clusters among them, the sign-flip test, since McNemar's takes items as independent.

    Args:
        base_values, tuned_values, clusters: one entry an item, in the same order; a value of None, NaN or infinity
            is one that is not defined, and drops the item on both sides.

    Raises:
        ValueError: the three differ in length.
    """
    import numpy as np

    if not len(base_values) == len(tuned_values) == len(clusters):
        raise ValueError(f"{task}, {metric}: {len(base_values)}, {len(tuned_values)}, {len(clusters)} entries")
    base, tuned = np.array(base_values, dtype=float), np.array(tuned_values, dtype=float)
    defined = np.isfinite(base) & np.isfinite(tuned)
    if not defined.any():
        return None
    base, tuned = base[defined], tuned[defined]
    kept = [cluster for cluster, both in zip(clusters, defined, strict=True) if both]
    right_or_wrong = np.isin(base, (0, 1)).all() and np.isin(tuned, (0, 1)).all()
    if right_or_wrong and len(set(kept)) == len(kept):
        p_value = mcnemar_exact(base, tuned)
    else:
        p_value = paired_permutation(base, tuned, kept)
    difference, low, high = paired_bootstrap(base, tuned, kept)
    return Comparison(
        task=task,
        metric=metric,
        n=len(kept),
        base=base.mean(),
        tuned=tuned.mean(),
        difference=difference,
        ci_low=low,
        ci_high=high,
        p_value=p_value,
        detectable=smallest_detectable_difference(base, tuned, kept),
        higher_is_better=higher_is_better,
        slice=slice_name,
    )


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons as one family, each with its Holm-adjusted p."""
    adjusted = holm([comparison.p_value for comparison in comparisons])
    return [c.model_copy(update={"p_holm": p}) for c, p in zip(comparisons, adjusted, strict=True)]


def mcnemar_exact(base: "ArrayLike", tuned: "ArrayLike") -> float:
    """Two-sided exact p that two models are equally often right (McNemar 1947, by the binomial distribution).

    Args:
        base, tuned: right or wrong, one entry an item, shape (items,).
    """
    import numpy as np
    from scipy.stats import binomtest

    base, tuned = np.asarray(base, dtype=bool), np.asarray(tuned, dtype=bool)
    gained, lost = int((tuned & ~base).sum()), int((base & ~tuned).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def paired_bootstrap(
    base: "ArrayLike",
    tuned: "ArrayLike",
    clusters: Clusters,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float | None, float | None]:
    """Mean difference over items and its BCa interval, by resampling whole clusters (Efron 1987).

    The interval is expanded for few clusters, whose resamples vary less than new ones would, by the quantile that t has
    and the normal distribution has not (Hesterberg 2015, arXiv 1411.5279).

    Where every cluster shows the same difference, every resample does too: the interval is that one point, as for a
    model against itself. Its width then says that nothing varied here, not that nothing would elsewhere. One cluster
    alone can't be resampled: no interval.

    Args:
        base, tuned: values, shape (items,).
        clusters: the cluster of each item.

    Returns:
        Difference, low, high, in the metric's unit.
    """
    import numpy as np
    from scipy.stats import bootstrap

    sums, counts = _by_cluster(base, tuned, clusters)
    difference = float(sums.sum() / counts.sum())
    if len(sums) == 1:
        return difference, None, None
    if _alike(sums, counts):
        return difference, difference, difference
    interval = bootstrap(
        (sums, counts),
        lambda total, count, axis: total.sum(axis) / count.sum(axis),
        paired=True,
        vectorized=True,
        method="BCa",
        confidence_level=_expanded(confidence, len(sums)),
        n_resamples=resamples,
        batch=max(1, BATCH_CELLS // len(sums)),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return difference, float(interval.low), float(interval.high)


def paired_permutation(
    base: "ArrayLike", tuned: "ArrayLike", clusters: Clusters, seed: int = 0, resamples: int = RESAMPLES
) -> float:
    """Two-sided p that the sign of each cluster's difference is a coin's (Fisher's randomisation test).

    Exact where the sign patterns number no more than `resamples`; else drawn at random, the observed one counted in
    (Phipson & Smyth 2010), so that p is never below 2 / (resamples + 1).

    Args:
        base, tuned: values, shape (items,).
        clusters: the cluster of each item.
    """
    import numpy as np
    from scipy.stats import permutation_test

    sums, _ = _by_cluster(base, tuned, clusters)
    # A cluster without a difference has no sign to flip.
    sums = sums[sums != 0]
    if len(sums) < 2:
        return 1.0
    result = permutation_test(
        (sums,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, BATCH_CELLS // len(sums)),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p of each test of a family (Holm 1979); None was not tested, stays None and isn't counted."""
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    floor = 0.0
    for rank, (p, place) in enumerate(tested):
        floor = max(floor, min(1.0, (len(tested) - rank) * p))
        adjusted[place] = floor
    return adjusted


def smallest_detectable_difference(
    base: "ArrayLike", tuned: "ArrayLike", clusters: Clusters, power: float = 0.8, alpha: float = ALPHA
) -> float | None:
    """The true difference that a two-sided test at `alpha` would find with probability `power` on data like these.

    (z of 1 - alpha/2 plus z of power) standard errors of the paired difference (Bloom 1995), the errors clustered by
    prompt (Miller 2024, arXiv 2411.00640); a normal approximation, before Holm's correction. None where no spread was
    seen to estimate it from.

    Args:
        base, tuned: values, shape (items,).
        clusters: the cluster of each item.
    """
    import numpy as np
    from scipy.stats import norm

    sums, counts = _by_cluster(base, tuned, clusters)
    if len(sums) == 1 or _alike(sums, counts):
        return None
    residuals = _residuals(sums, counts)
    error = np.sqrt((residuals**2).sum() * len(sums) / (len(sums) - 1)) / counts.sum()
    return float((norm.ppf(1 - alpha / 2) + norm.ppf(power)) * error)


def cluster_intervals(
    statistic: "Callable[[np.ndarray], Sequence[float | None]]",
    clusters: Clusters,
    resamples: int = 1_000,
    seed: int = 0,
) -> list[tuple[float, float] | None]:
    """Percentile intervals of 95% of statistics that are no means, by resampling whole clusters (Efron 1979).

    Args:
        statistic: takes the places of items, some more than once; gives its values, None where one is not defined.
        clusters: the cluster of each item.

    Returns:
        An interval for each value; None where it was not defined, or one cluster alone can't be resampled.
    """
    import numpy as np

    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(np.repeat(np.arange(len(codes)), np.bincount(picked, minlength=len(numbers))[codes]))
        for picked in rng.integers(0, len(numbers), (resamples, len(numbers)))
    ]
    values = np.array(drawn, dtype=float)
    found: list[tuple[float, float] | None] = []
    for column in values.T:
        defined = column[~np.isnan(column)]
        enough = len(numbers) > 1 and len(defined)
        found.append((float(np.quantile(defined, 0.025)), float(np.quantile(defined, 0.975))) if enough else None)
    return found


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95% interval of one proportion over independent items (Wilson 1927); all of 0 to 1 where there are none."""
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _by_cluster(base: "ArrayLike", tuned: "ArrayLike", clusters: Clusters) -> "tuple[np.ndarray, np.ndarray]":
    """Sum of differences and count of items of each cluster, in order of first appearance."""
    import numpy as np

    numbers: dict[Hashable, int] = {}
    codes = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    differences = np.asarray(tuned, dtype=float) - np.asarray(base, dtype=float)
    return np.bincount(codes, weights=differences), np.bincount(codes)


def _expanded(confidence: float, clusters: int) -> float:
    """The level at which an interval from so many clusters' resamples holds the truth as often as `confidence` says."""
    from scipy.stats import norm, t

    quantile = t.ppf((1 + confidence) / 2, clusters - 1) * (clusters / (clusters - 1)) ** 0.5
    # Beyond that, an interval would end where no resample lies.
    return min(float(2 * norm.cdf(quantile) - 1), 0.9999)


def _residuals(sums: "np.ndarray", counts: "np.ndarray") -> "np.ndarray":
    """What each cluster's sum departs from the mean difference by."""
    return cast("np.ndarray", sums - counts * (sums.sum() / counts.sum()))


def _alike(sums: "np.ndarray", counts: "np.ndarray") -> bool:
    """Whether all clusters show one difference, up to rounding."""
    scale = abs(sums).max()
    return bool(abs(_residuals(sums, counts)).max() <= 1e-12 * scale)
