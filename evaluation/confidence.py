"""Does each model's confidence tell its right answers from its wrong ones? The figures of a report, by task."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from evaluation.calibration import area_under_risk_coverage, auroc, brier_score, expected_calibration_error
from evaluation.results import Calibration, Sample
from evaluation.statistics import cluster_intervals

if TYPE_CHECKING:
    import numpy as np

# Confidence and outcome of the attempted answers in, a figure out; and whether a higher one is better.
FIGURES: dict[str, tuple[Callable[[Any, Any], float | None], bool]] = {
    "calibration error (ECE)": (expected_calibration_error, False),
    "Brier score": (brier_score, False),
    "area under risk and coverage": (area_under_risk_coverage, False),
    "AUROC of confidence": (auroc, True),
}


def calibrations(samples: Sequence[Sample]) -> list[Calibration]:
    """Each figure on both models, over the answers that they attempted; abstentions have no confidence to judge.

    An answer to a question that can't be answered is wrong. The intervals resample whole prompts, the same ones for
    both models.
    """
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.graded:
            groups.setdefault(sample.task, []).append(sample)
    return [figure for task, group in groups.items() for figure in _of_task(task, group)]


def _of_task(task: str, samples: Sequence[Sample]) -> list[Calibration]:
    import numpy as np

    sides = [_attempts(samples, side) for side in ("base", "tuned")]
    attempted = [int(np.isfinite(confidence).sum()) for confidence, _ in sides]
    if not any(attempted):
        return []

    def statistic(places: "np.ndarray") -> list[float | None]:
        values: list[float | None] = []
        for figure, _ in FIGURES.values():
            base, tuned = (_figure(figure, confidence[places], right[places]) for confidence, right in sides)
            values += [base, tuned, None if base is None or tuned is None else tuned - base]
        return values

    point = statistic(np.arange(len(samples)))
    intervals = cluster_intervals(statistic, [sample.cluster for sample in samples])
    return [
        Calibration(
            task=task,
            figure=name,
            higher_is_better=better,
            base_attempted=attempted[0],
            tuned_attempted=attempted[1],
            n=len(samples),
            base=point[3 * number],
            base_interval=intervals[3 * number],
            tuned=point[3 * number + 1],
            tuned_interval=intervals[3 * number + 1],
            difference=point[3 * number + 2],
            difference_interval=intervals[3 * number + 2],
        )
        for number, (name, (_, better)) in enumerate(FIGURES.items())
    ]


def _attempts(samples: Sequence[Sample], side: str) -> "tuple[np.ndarray, np.ndarray]":
    """Confidence, NaN where the model abstained or none is known, and whether it is right."""
    import numpy as np

    outcomes = [getattr(sample, f"{side}_outcome") for sample in samples]
    stated = [getattr(sample, f"{side}_confidence") for sample in samples]
    confidence = [None if outcome == "abstained" else value for outcome, value in zip(outcomes, stated, strict=True)]
    return np.array(confidence, dtype=float), np.array([outcome == "correct" for outcome in outcomes])


def _figure(figure: Callable[[Any, Any], float | None], confidence: "np.ndarray", right: "np.ndarray") -> float | None:
    import numpy as np

    known = np.isfinite(confidence)
    return figure(confidence[known], right[known]) if known.any() else None
