"""Where the marks of the report's plots stand, in percent of the plot's width or height; the template draws them.

Percentages, and no drawing library, so that the plots fill a phone and a desk alike with text of one size, in the
colours of the page.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evaluation.calibration import BINS
from evaluation.results import OUTCOMES, Outcome, Sample
from evaluation.statistics import Comparison, wilson

# More points than a curve of this width can show.
CURVE_POINTS = 200


@dataclass(frozen=True)
class Tick:
    place: float
    value: float


@dataclass(frozen=True)
class Interval:
    """One comparison's row; `low` and `high` are None where it has no interval."""

    comparison: Comparison
    low: float | None
    middle: float
    high: float | None


@dataclass(frozen=True)
class Forest:
    """Comparisons that share one axis."""

    ticks: tuple[Tick, ...]
    rows: tuple[Interval, ...]


@dataclass(frozen=True)
class Segment:
    """Items with one outcome: their share in percent, where it starts, and its 95% interval."""

    outcome: Outcome
    count: int
    start: float
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Bars:
    """The outcomes of both models on one task's questions that have an answer, or on those that have none."""

    task: str
    answerable: bool
    n: int
    base: tuple[Segment, ...]
    tuned: tuple[Segment, ...]


@dataclass(frozen=True)
class Curves:
    """Share of wrong answers (y, downwards from the top) by share of questions answered (x), for one task."""

    task: str
    n: int
    base: tuple[tuple[float, float], ...]
    tuned: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Bin:
    """Answers of like confidence: its mean and their accuracy with its 95% interval, in percent, and the dot's size."""

    n: int
    confidence: float
    accuracy: float
    low: float
    high: float
    radius: float


@dataclass(frozen=True)
class Reliability:
    """Accuracy (y, upwards) by confidence (x) of both models' attempted answers to one task."""

    task: str
    base: tuple[Bin, ...]
    tuned: tuple[Bin, ...]


def forests(comparisons: Sequence[Comparison]) -> list[Forest]:
    """Differences with their intervals: metrics from 0 to 1 on one axis, each other metric on its own."""
    shared = [c for c in comparisons if min(c.base, c.tuned) >= 0 and max(c.base, c.tuned) <= 1]
    groups = [shared] if shared else []
    groups += [[c] for c in comparisons if c not in shared]
    return [_forest(group) for group in groups]


def _forest(comparisons: Sequence[Comparison]) -> Forest:
    ends = [0.0] + [v for c in comparisons for v in (c.difference, c.ci_low, c.ci_high) if v is not None]
    low, high = min(ends), max(ends)
    step = _round_step((high - low) / 4 or 0.1)
    first, last = math.floor(low / step), math.ceil(high / step)
    # A model against itself has no width to show: one step on each side of zero.
    first, last = (first, last) if first < last else (-1, 1)
    start, width = first * step, (last - first) * step

    def place(value: float | None) -> float | None:
        return None if value is None else 100 * (value - start) / width

    return Forest(
        ticks=tuple(Tick(100 * (i - first) / (last - first), i * step) for i in range(first, last + 1)),
        rows=tuple(
            Interval(c, place(c.ci_low), 100 * (c.difference - start) / width, place(c.ci_high)) for c in comparisons
        ),
    )


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is no less than `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def outcome_bars(samples: Iterable[Sample]) -> list[Bars]:
    """What both models did with the questions of each task, those without an answer apart."""
    groups: dict[tuple[str, bool], list[Sample]] = {}
    for sample in samples:
        if sample.graded:
            groups.setdefault((sample.task, sample.answerable), []).append(sample)
    return [
        Bars(
            task,
            answerable,
            len(group),
            _segments([sample.base_outcome for sample in group]),
            _segments([sample.tuned_outcome for sample in group]),
        )
        for (task, answerable), group in groups.items()
    ]


def _segments(outcomes: Sequence[Outcome | None]) -> tuple[Segment, ...]:
    segments, start = [], 0.0
    for outcome in OUTCOMES:
        count = outcomes.count(outcome)
        share = 100 * count / len(outcomes)
        low, high = wilson(count, len(outcomes))
        segments.append(Segment(outcome, count, start, share, 100 * low, 100 * high))
        start += share
    return tuple(segments)


def risk_coverage(samples: Iterable[Sample]) -> list[Curves]:
    """Risk-coverage curves (El-Yaniv & Wiener 2010), the surest answers first, for tasks where confidence is known.

    An abstention is never covered, so that a model's curve ends at the share of questions it attempted.
    """
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        base = sample.base_outcome == "abstained" or sample.base_confidence is not None
        tuned = sample.tuned_outcome == "abstained" or sample.tuned_confidence is not None
        if sample.graded and base and tuned:
            groups.setdefault(sample.task, []).append(sample)
    curves = [
        Curves(
            task,
            len(group),
            _curve([(s.base_confidence, s.base_outcome) for s in group]),
            _curve([(s.tuned_confidence, s.tuned_outcome) for s in group]),
        )
        for task, group in groups.items()
    ]
    return [curve for curve in curves if curve.base or curve.tuned]


def _curve(answers: Sequence[tuple[float | None, Outcome | None]]) -> tuple[tuple[float, float], ...]:
    attempted = sorted(
        ((confidence, outcome) for confidence, outcome in answers if confidence is not None and outcome != "abstained"),
        key=lambda answer: -answer[0],
    )
    points, wrong = [], 0
    for covered, (confidence, outcome) in enumerate(attempted, start=1):
        wrong += outcome == "incorrect"
        # Answers of equal confidence come in together: no threshold can part them.
        if covered == len(attempted) or attempted[covered][0] < confidence:
            points.append((100 * covered / len(answers), 100 - 100 * wrong / covered))
    if len(points) <= CURVE_POINTS:
        return tuple(points)
    return tuple(points[round(i * (len(points) - 1) / (CURVE_POINTS - 1))] for i in range(CURVE_POINTS))


def reliability(samples: Iterable[Sample]) -> list[Reliability]:
    """Reliability diagrams over bins of equal width (arXiv 1706.04599, section 2), for tasks with confidences."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.graded:
            groups.setdefault(sample.task, []).append(sample)
    found = [
        Reliability(
            task,
            _bins([(s.base_confidence, s.base_outcome) for s in group]),
            _bins([(s.tuned_confidence, s.tuned_outcome) for s in group]),
        )
        for task, group in groups.items()
    ]
    return [each for each in found if each.base or each.tuned]


def _bins(answers: Sequence[tuple[float | None, Outcome | None]]) -> tuple[Bin, ...]:
    attempted = [(confidence, outcome) for confidence, outcome in answers if confidence is not None]
    attempted = [(confidence, outcome) for confidence, outcome in attempted if outcome != "abstained"]
    binned: dict[int, list[tuple[float, Outcome | None]]] = {}
    for confidence, outcome in attempted:
        # As in the calibration error: a bin holds its upper edge, and 0 is in the first.
        binned.setdefault(max(0, math.ceil(confidence * BINS) - 1), []).append((confidence, outcome))
    return tuple(_bin(binned[place], len(attempted)) for place in sorted(binned))


def _bin(answers: Sequence[tuple[float, Outcome | None]], attempted: int) -> Bin:
    n, right = len(answers), sum(outcome == "correct" for _, outcome in answers)
    low, high = wilson(right, n)
    confidence = sum(confidence for confidence, _ in answers) / n
    return Bin(n, 100 * confidence, 100 * right / n, 100 * low, 100 * high, 3 + 5 * math.sqrt(n / attempted))
