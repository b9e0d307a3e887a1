"""Does a model's confidence tell right answers from wrong ones? Confidence is the answer's probability, 0 to 1."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

BINS = 10


def expected_calibration_error(confidence: "ArrayLike", right: "ArrayLike", bins: int = BINS) -> float:
    """Mean distance of confidence and accuracy over bins of equal width, by their sizes (arXiv 1706.04599, eq. 3).

    Args:
        confidence, right: one entry an answer, shape (answers,); a bin holds its upper edge, and 0 is in the first.
    """
    import numpy as np

    stated, correct = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    place = np.clip(np.ceil(stated * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, stated - correct, bins)
    return float(abs(gaps).sum() / len(stated))


def brier_score(confidence: "ArrayLike", right: "ArrayLike") -> float:
    """Mean squared distance of confidence and outcome (Brier 1950, one-sided form: 0 is best, 1 worst)."""
    import numpy as np

    return float(np.mean((np.asarray(confidence, dtype=float) - np.asarray(right, dtype=float)) ** 2))


def risk_coverage(confidence: "ArrayLike", right: "ArrayLike") -> "tuple[np.ndarray, np.ndarray]":
    """Risk (share of wrong answers) at each coverage, the surest answers first (El-Yaniv & Wiener 2010).

    Within answers of equal confidence, which no threshold can part, the risk is what a random order gives on average.

    Returns:
        Coverage 1/n, 2/n, ..., 1 and the risk at each.
    """
    import numpy as np

    stated, wrong = np.asarray(confidence, dtype=float), 1 - np.asarray(right, dtype=float)
    _, group, size = np.unique(-stated, return_inverse=True, return_counts=True)
    mean_wrong = np.bincount(group, wrong) / size
    covered = np.arange(1, len(stated) + 1)
    return covered / len(stated), np.cumsum(np.repeat(mean_wrong, size)) / covered


def area_under_risk_coverage(confidence: "ArrayLike", right: "ArrayLike") -> float:
    """Mean risk over all coverages (AURC, arXiv 1805.08206, eq. 3): 0 is best; a random order gives the error rate."""
    return float(risk_coverage(confidence, right)[1].mean())


def auroc(score: "ArrayLike", positive: "ArrayLike") -> float | None:
    """Probability that a positive has a higher score than a negative, ties counting half; None without both kinds."""
    import numpy as np
    from scipy.stats import rankdata

    found, truth = np.asarray(score, dtype=float), np.asarray(positive, dtype=bool)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    return float((rankdata(found)[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))
