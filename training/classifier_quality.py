"""How good a classifier is on examples that it was not trained on, beside a baseline that knows lengths only."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from feedback.curation.intervals import Z, wilson

Figures = dict[str, float]


def quality(probabilities: Any, labels: Sequence[int]) -> Figures:
    """Figures for the metrics' line.

    Args:
        probabilities: of each label, shape (examples, labels).
        labels: the right one's place.

    Returns:
        `n`; accuracy with Wilson's interval of 95% (accuracy_low, accuracy_high); f1_macro; and the area under the ROC
        curve where every label occurs: with its interval for two labels, the mean of one against the rest for more.
    """
    from sklearn.metrics import f1_score

    found, truth = np.asarray(probabilities, dtype=float), np.asarray(labels)
    said, kinds = found.argmax(1), range(found.shape[1])
    low, high = wilson(float((said == truth).sum()), len(truth))
    figures = {
        "n": len(truth),
        "accuracy": float((said == truth).mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "f1_macro": float(f1_score(truth, said, average="macro", labels=list(kinds), zero_division=0.0)),
    }
    if set(truth) == set(kinds):
        areas = [auroc(found[:, kind], truth == kind) for kind in kinds]
        figures["auroc"] = float(np.mean([area for area, _, _ in areas]))
        if len(areas) == 2:
            _, figures["auroc_low"], figures["auroc_high"] = areas[1]
    return figures


def auroc(scores: Any, positive: Any) -> tuple[float, float, float]:
    """Area under the ROC curve with its interval of 95% (DeLong, DeLong and Clarke-Pearson, Biometrics 1988).

    Args:
        scores: the higher, the likelier positive, shape (examples,).
        positive: whether each is, shape (examples,); both kinds occur.
    """
    from scipy.stats import rankdata

    m, n = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores)
    # Share of negatives below each positive, and of positives above each negative, ties being half.
    above = (ranks[positive] - rankdata(scores[positive])) / n
    below = 1 - (ranks[~positive] - rankdata(scores[~positive])) / m
    area = float(above.mean())
    variance = (above.var(ddof=1) / m if m > 1 else 0.0) + (below.var(ddof=1) / n if n > 1 else 0.0)
    half = Z * float(variance) ** 0.5
    return area, max(0.0, area - half), min(1.0, area + half)


class LengthBaseline:
    """What can be told from an example's length alone: logistic regression on its logarithm.

    Args:
        lengths: of the training examples, in characters.
        labels: their labels' places; at least two occur.
        kinds: how many labels there are.
    """

    def __init__(self, lengths: Sequence[int], labels: Sequence[int], kinds: int) -> None:
        from sklearn.linear_model import LogisticRegression

        self.kinds = kinds
        self.model = LogisticRegression().fit(_features(lengths), labels)

    def __call__(self, lengths: Sequence[int]) -> Any:
        """Probabilities, shape (examples, labels)."""
        found = np.zeros((len(lengths), self.kinds))
        found[:, self.model.classes_] = self.model.predict_proba(_features(lengths))
        return found


def sentence(metrics: Mapping[str, float]) -> str:
    """What was found, from a metrics' line, for a person."""

    def shown(name: str) -> str:
        return f"{metrics[f'eval_{name}']:.1%}"

    words = (
        f"of {metrics['eval_n']} held-out examples {shown('accuracy')} get the right label ({shown('accuracy_low')} to "
        f"{shown('accuracy_high')}, 95%; by length alone {shown('length_accuracy')}), macro F1 "
        f"{metrics['eval_f1_macro']:.3f} (by length {metrics['eval_length_f1_macro']:.3f})"
    )
    if "eval_auroc" not in metrics:
        return words
    words += f", AUROC {metrics['eval_auroc']:.3f}"
    if "eval_auroc_low" in metrics:
        words += f" ({metrics['eval_auroc_low']:.3f} to {metrics['eval_auroc_high']:.3f}, 95%)"
    return f"{words}; by length {metrics['eval_length_auroc']:.3f}"


def _features(lengths: Sequence[int]) -> Any:
    return np.log1p(np.asarray(lengths, dtype=float))[:, None]
