"""How good is a detector? Its figures on answers that people labelled, beside what the answers' length alone tells."""

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from evaluation.calibration import auroc
from evaluation.labelled_answers import Labelled, LabelledSet
from evaluation.statistics import cluster_intervals
from feedback.errors import UserError
from feedback.files import write_atomic
from feedback.schema import Record

if TYPE_CHECKING:
    import numpy as np

_VERSION = re.compile(r"v(\d+)\.json")
RESAMPLES = 1_000
Interval = tuple[float, float]


class Accuracy(Record):
    """What a detector's scores are worth on one set of labelled answers.

    `by` are the models and runs that it asks, `labels` the set. The intervals of 95% resample whole questions. The
    thresholds of balanced accuracy are chosen on one half of the questions and tried on the other. `difference` is the
    detector's AUROC minus that of length, which is taken in whichever direction is the better one. None stands where
    labels are all alike.
    """

    detector: str
    by: tuple[str, ...] = ()
    labels: str
    data_hash: str
    n: int
    positives: int
    questions: int
    unscored: int = Field(description="answers left out, e.g. as too long for the model")
    auroc: float | None = None
    auroc_interval: Interval | None = None
    balanced_accuracy: float | None = None
    balanced_accuracy_interval: Interval | None = None
    length_auroc: float | None = None
    length_balanced_accuracy: float | None = None
    difference: float | None = None
    difference_interval: Interval | None = None
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @property
    def key(self) -> tuple[str, tuple[str, ...], str]:
        """A new figure with the same one takes the place of an old one."""
        return self.detector, self.by, self.labels

    @property
    def basis(self) -> str:
        """On what it was measured, asking whom."""
        return self.labels + (f", asking {', '.join(self.by)}" if self.by else "")

    @property
    def verdict(self) -> str:
        """How it compares with length alone, in words."""
        if self.auroc is None:
            return (
                f"not measurable: all {self.n} are labelled alike" if self.n else "not measurable: nothing was scored"
            )
        if self.difference_interval is None or self.difference_interval[0] <= 0:
            worse = self.difference_interval is not None and self.difference_interval[1] < 0
            return "worse than length alone" if worse else "no better than length alone"
        return "better than length alone"


class Kept(Record):
    """A version of a workspace's figures on its detectors."""

    version: int
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    command: str
    accuracies: tuple[Accuracy, ...]


def measure(detector: str, by: Sequence[str], labelled: LabelledSet, scores: Sequence[float | None]) -> Accuracy:
    """A detector's figures.

    Args:
        scores: of each item, the higher, the likelier positive; None where the detector has none.
    """
    import numpy as np

    pairs = zip(labelled.items, scores, strict=True)
    known = [(item, score) for item, score in pairs if score is not None and np.isfinite(score)]
    items, found = [item for item, _ in known], np.array([score for _, score in known], dtype=float)
    truth = np.array([item.positive for item in items], dtype=bool)
    questions = [item.question for item in items]
    figures = {
        "n": len(items),
        "positives": int(truth.sum()),
        "questions": len(set(questions)),
        "unscored": len(scores) - len(items),
    }
    about = {"detector": detector, "by": tuple(by), "labels": labelled.name, "data_hash": labelled.hash} | figures
    if truth.all() or not truth.any():
        return Accuracy.model_validate(about)
    length = _length(items, truth)
    said, said_by_length = (_cross_fitted(values, truth, questions) for values in (found, length))

    def statistic(places: "np.ndarray") -> list[float | None]:
        own, by_length = (auroc(values[places], truth[places]) for values in (found, length))
        gap = None if own is None or by_length is None else own - by_length
        return [own, by_length, gap, *(_balanced(each, truth, places) for each in (said, said_by_length))]

    point = statistic(np.arange(len(items)))
    intervals = cluster_intervals(statistic, questions, RESAMPLES)
    names = ("auroc", "length_auroc", "difference", "balanced_accuracy", "length_balanced_accuracy")
    whole = dict(zip(names, point, strict=True))
    spread = {f"{name}_interval": interval for name, interval in zip(names, intervals, strict=True)}
    kept = {name: value for name, value in (whole | spread).items() if name in Accuracy.model_fields}
    return Accuracy.model_validate(about | kept)


def _length(items: Sequence[Labelled], truth: "np.ndarray") -> "np.ndarray":
    """Lengths in characters, signed so that higher ones speak for a positive."""
    import numpy as np

    lengths = np.array([len(item.answer) for item in items], dtype=float)
    return lengths if (auroc(lengths, truth) or 0) >= 0.5 else -lengths


def _cross_fitted(scores: "np.ndarray", truth: "np.ndarray", questions: Sequence[str]) -> "np.ndarray | None":
    """Verdicts by a threshold that the other half of the questions found best; None where a half is all alike."""
    import numpy as np
    from sklearn.metrics import roc_curve

    numbers = {question: number for number, question in enumerate(dict.fromkeys(questions))}
    half = np.array([numbers[question] % 2 for question in questions], dtype=bool)
    said = np.zeros(len(scores), dtype=bool)
    for chosen, tried in ((half, ~half), (~half, half)):
        if len(set(truth[chosen])) < 2:
            return None
        false, true, thresholds = roc_curve(truth[chosen], scores[chosen])
        said[tried] = scores[tried] >= thresholds[(true - false).argmax()]
    return said


def _balanced(said: "np.ndarray | None", truth: "np.ndarray", places: "np.ndarray") -> float | None:
    if said is None:
        return None
    verdicts, labels = said[places], truth[places]
    if labels.all() or not labels.any():
        return None
    return float((verdicts[labels].mean() + (~verdicts[~labels]).mean()) / 2)


def keep(folder: Path, accuracies: Sequence[Accuracy], command: str) -> Path:
    """Write a new version, with what the last one holds besides.

    Args:
        folder: a workspace's, which is made where it is missing.
    """
    last = load(folder)
    new = {accuracy.key: accuracy for accuracy in [*(last.accuracies if last else ()), *accuracies]}
    kept = Kept(version=(last.version if last else 0) + 1, command=command, accuracies=tuple(new.values()))
    folder.mkdir(exist_ok=True)
    path = folder / f"v{kept.version}.json"
    write_atomic(path, kept.model_dump_json(indent=2) + "\n")
    return path


def load(folder: Path) -> Kept | None:
    """The newest version, or None where no detector was measured yet.

    Raises:
        UserError: it is not what veritune wrote.
    """
    versions = {int(name[1]): path for path in folder.glob("v*.json") if (name := _VERSION.fullmatch(path.name))}
    if not versions:
        return None
    path = versions[max(versions)]
    try:
        return Kept.model_validate_json(path.read_bytes())
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UserError(f"{path}: damaged ({reason}); remove it and repeat `veritune validate-detectors`") from None


def concerning(folder: Path, detectors: Sequence[str], by: Collection[str]) -> dict[str, tuple[Accuracy, ...]]:
    """The newest figures on each of these detectors, as far as they ask none but these models and runs."""
    kept = load(folder)
    known = [each for each in (kept.accuracies if kept else ()) if set(each.by) <= set(by)]
    return {name: tuple(each for each in known if each.detector == name) for name in detectors}
