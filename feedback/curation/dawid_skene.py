"""How reliable is each rater, and how probable is each verdict: the model of Dawid and Skene, by EM.

Dawid & Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm", Applied Statistics 28
(1979), 20-28. Each rater has a confusion matrix: what they say when the truth is this or that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from feedback.curation.intervals import Z

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What no rater has done yet is improbable, not impossible.
LEAST = 1e-10
RESAMPLES = 200
# Items of a resample at most; the spread of smaller ones is scaled.
RESAMPLED = 5_000


@dataclass(frozen=True)
class Ballots:
    """The votes on some items.

    Args:
        items: of each vote, its item, from 0 without a gap.
        raters, labels: of each vote, who gave it and what it says, as numbers.
        times: of each item, how many there are that got exactly these votes.
    """

    items: "NDArray[np.int64]"
    raters: "NDArray[np.int64]"
    labels: "NDArray[np.int64]"
    times: "NDArray[np.float64]"


@dataclass(frozen=True)
class RaterModel:
    """What EM found.

    Args:
        prior: how common each class is.
        confusion: raters x truth x said; rows sum to 1.
        expected: the same as expected counts of votes.
        likelihood: log-likelihood of the votes, by iteration; it never falls.
        converged: it rose by less than the tolerance in the end.
    """

    prior: "NDArray[np.float64]"
    confusion: "NDArray[np.float64]"
    expected: "NDArray[np.float64]"
    likelihood: tuple[float, ...] = ()
    converged: bool = False

    def posterior(self, ballots: Ballots) -> "NDArray[np.float64]":
        """Items x classes: how probable each class is, given the votes (equation 2.5)."""
        return self._posterior(ballots)[0]

    def _posterior(self, ballots: Ballots) -> tuple["NDArray[np.float64]", float]:
        import numpy as np

        of_votes = np.log(self.confusion)[ballots.raters, :, ballots.labels]
        joint = np.log(self.prior) + _sum_by_item(ballots, of_votes)
        highest = joint.max(axis=1, keepdims=True)
        scaled = np.exp(joint - highest)
        total = scaled.sum(axis=1, keepdims=True)
        return scaled / total, float(ballots.times @ (np.log(total) + highest)[:, 0])

    @property
    def votes(self) -> "NDArray[np.float64]":
        """How many votes each rater cast."""
        return self.expected.sum(axis=(1, 2))

    @property
    def accuracy(self) -> "NDArray[np.float64]":
        """The share of each rater's votes that is expected to be right."""
        import numpy as np

        with np.errstate(invalid="ignore"):
            return self.expected.trace(axis1=1, axis2=2) / self.votes


def fit(
    ballots: Ballots,
    raters: int,
    classes: int,
    mirrored: Sequence[int] | None = None,
    start: RaterModel | None = None,
    iterations: int = 1_000,
    tolerance: float = 1e-8,
) -> RaterModel:
    """Estimate the raters' confusion matrices, from the majority's verdicts on, or from where a model stands.

    Args:
        mirrored: of each class, what it is called seen from the other side; the estimate is then the one of all items
            taken both ways round. None where the classes are no sides.
        tolerance: of the log-likelihood of one vote; EM ends when an iteration gains less.
    """
    import numpy as np

    shares = _sum_by_item(ballots, np.eye(classes)[ballots.labels])
    posterior = shares / shares.sum(axis=1, keepdims=True) if start is None else start.posterior(ballots)
    model = _maximise(ballots, posterior, raters, mirrored)
    history: list[float] = []
    while len(history) < iterations:
        posterior, likelihood = model._posterior(ballots)
        history.append(likelihood)
        model = _maximise(ballots, posterior, raters, mirrored)
        if len(history) > 1 and history[-1] - history[-2] < tolerance * model.expected.sum():
            return replace(model, likelihood=tuple(history), converged=True)
    return replace(model, likelihood=tuple(history))


def accuracy_intervals(
    ballots: Ballots, model: RaterModel, mirrored: Sequence[int] | None = None, seed: int = 0
) -> list[tuple[float, float]]:
    """Each rater's accuracy, 95%: the spread over resampled items, each time estimated anew from the model on.

    A resample has RESAMPLED items at most (the m out of n bootstrap); its spread is scaled to the number there are.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    raters, classes, _ = model.confusion.shape
    n = int(ballots.times.sum())
    drawn = min(n, RESAMPLED)
    found = []
    for _ in range(RESAMPLES):
        times = rng.multinomial(drawn, ballots.times / n).astype(float)
        kept = times[ballots.items] > 0
        items = np.cumsum(times > 0)[ballots.items[kept]] - 1
        sample = Ballots(items, ballots.raters[kept], ballots.labels[kept], times[times > 0])
        found.append(fit(sample, raters, classes, mirrored, start=model, tolerance=1e-6).accuracy)
    spread = Z * np.nanstd(found, axis=0) * (drawn / n) ** 0.5
    ends = zip(model.accuracy - spread, model.accuracy + spread, strict=True)
    return [(max(0.0, float(low)), min(1.0, float(high))) for low, high in ends]


def _maximise(
    ballots: Ballots, posterior: "NDArray[np.float64]", raters: int, mirrored: Sequence[int] | None
) -> RaterModel:
    """The M step (equations 2.3 and 2.4)."""
    import numpy as np

    classes = posterior.shape[1]
    weighed = posterior * ballots.times[:, None]
    cells = ballots.raters * classes + ballots.labels
    of_truth = [np.bincount(cells, weighed[ballots.items, truth], raters * classes) for truth in range(classes)]
    expected = np.array(of_truth, dtype=float).reshape(classes, raters, classes).swapaxes(0, 1)
    totals = weighed.sum(axis=0)
    if mirrored is not None:
        other_way = list(mirrored)
        expected = (expected + expected[:, other_way][:, :, other_way]) / 2
        totals = (totals + totals[other_way]) / 2
    prior = np.maximum(totals / totals.sum(), LEAST)
    counts = np.maximum(expected, LEAST)
    return RaterModel(prior / prior.sum(), counts / counts.sum(axis=2, keepdims=True), expected)


def _sum_by_item(ballots: Ballots, values: "NDArray[np.float64]") -> "NDArray[np.float64]":
    import numpy as np

    return np.stack([np.bincount(ballots.items, column, len(ballots.times)) for column in values.T], axis=1)
