"""How much sooner people meet the pairs on which the judges are wrong when the uncertain comes first than by chance.

Simulated: two answers differ in quality by a standard normal; each judge sees that with noise of its own, or with half
of the noise's variance in common with the others, and is 1.5 times as sure as it should be. Real: harmless pairs of
HH-RLHF, of which small Bradley-Terry models of words, each taught on a resample of one half, judge the other half.
"""

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from feedback.curation.uncertainty import uncertainty
from feedback.schema import Candidate, Judgement, Rater, Response, user_message

RESULTS = Path(__file__).parent / "results" / "active_order.json"
HARMLESS = Path(__file__).resolve().parents[3] / "shared" / "data" / "hh-rlhf" / "harmless.jsonl"
PAIRS, ROUNDS, FIRST = 1_000, 50, 0.2
# As the server orders them: within a tenth each rater has an own order.
STEPS = 10
OVERCONFIDENCE = 1.5
PAIR = Candidate(prompt=user_message("?"), responses=(Response(text="a"), Response(text="b")))


@dataclass(frozen=True)
class Judged:
    """Of some pairs: each judge's probability that the first answer is better (judges x pairs), and whether it is."""

    probabilities: np.ndarray
    first_is_better: np.ndarray


def simulated(noises: Sequence[float], shared: float) -> Callable[[int], Judged]:
    """Judges with noise of these standard deviations, a share of its variance common to all of them."""

    def draw(seed: int) -> Judged:
        rng = np.random.default_rng(seed)
        difference, common = rng.standard_normal((2, PAIRS))
        own = rng.standard_normal((len(noises), PAIRS))
        noise = np.array(noises)[:, None] * (shared**0.5 * common + (1 - shared) ** 0.5 * own)
        # Its best guess at the difference, by what it sees; a logistic of scale 1/1.7 is about a normal.
        precision = 1 / np.array(noises)[:, None] ** 2
        sure = 1.7 * OVERCONFIDENCE * (difference + noise) * precision / (1 + precision) ** 0.5
        return Judged(1 / (1 + np.exp(-sure)), difference > 0)

    return draw


def harmless(judges: int) -> Callable[[int], Judged]:
    """Real pairs, in another split each time."""
    rows = [json.loads(line) for line in HARMLESS.read_text().splitlines()]
    counts = CountVectorizer(binary=True, min_df=3)
    words = counts.fit_transform([_answer(row[side]) for side in ("chosen", "rejected") for row in rows])
    difference = words[: len(rows)] - words[len(rows) :]

    def draw(seed: int) -> Judged:
        rng = np.random.default_rng(seed)
        sides = rng.choice((-1, 1), len(rows))
        features, better = difference.multiply(sides[:, None]).tocsr(), sides > 0
        order = rng.permutation(len(rows))
        taught, asked = order[: len(rows) // 2], order[len(rows) // 2 :]
        said = []
        for _ in range(judges):
            sample = rng.choice(taught, len(taught))
            model = LogisticRegression(C=0.1, fit_intercept=False, max_iter=500).fit(features[sample], better[sample])
            said.append(model.predict_proba(features[asked])[:, 1])
        return Judged(np.array(said), better[asked])

    return draw


def _answer(conversation: str) -> str:
    return conversation.rpartition("\n\nAssistant:")[2]


def measure(judged: Judged, seed: int) -> dict[str, float]:
    """How often the committee is wrong, and the share of those pairs that stands in the first part of a queue."""
    wrong = (judged.probabilities.mean(axis=0) > 0.5) != judged.first_is_better
    scores = np.array([uncertainty(PAIR, _judgements(column)) for column in judged.probabilities.T])
    rng = random.Random(seed)
    own = np.array([rng.random() for _ in scores])
    orders = {"uncertain": np.lexsort((own, -np.floor(scores * STEPS))), "exact": np.argsort(-scores, kind="stable")}
    orders["chance"] = np.argsort(own)
    seen = {name: wrong[order][: round(FIRST * len(wrong))].sum() / wrong.sum() for name, order in orders.items()}
    above = scores[wrong][:, None] - scores[~wrong][None, :]
    return {"wrong": wrong.mean(), **seen, "auc": ((above > 0) + 0.5 * (above == 0)).mean()}


def _judgements(probabilities: np.ndarray) -> list[Judgement]:
    return [
        Judgement(
            candidate_id="-",
            rater=Rater(kind="ai", name=str(number)),
            source="benchmark",
            preferred=int(p < 0.5),
            probability=max(p, 1 - p),
        )
        for number, p in enumerate(probabilities.tolist())
    ]


def spread(values: Sequence[float]) -> list[float]:
    """Mean over the rounds, and what 95% of them lie between."""
    return [round(float(each), 3) for each in (np.mean(values), *np.percentile(values, [2.5, 97.5]))]


CASES = {
    "one judge": lambda: simulated([1.0], 0),
    "three judges": lambda: simulated([0.8, 1.0, 1.3], 0),
    "three judges who err alike": lambda: simulated([0.8, 1.0, 1.3], 0.5),
    "HH-RLHF, one model of words": lambda: harmless(1),
    "HH-RLHF, five models of words": lambda: harmless(5),
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    kept: dict[str, Any] = {}
    print(
        f"share of the judges' wrong pairs in the first {FIRST:.0%} of a queue; mean of {ROUNDS} rounds (95% of them)"
    )
    for name, case in CASES.items():
        draw = case()
        rounds = [measure(draw(seed), seed) for seed in range(ROUNDS)]
        kept[name] = {figure: spread([each[figure] for each in rounds]) for figure in rounds[0]}
        said = "  ".join(f"{figure} {m:.2f} ({low:.2f} to {high:.2f})" for figure, (m, low, high) in kept[name].items())
        print(f"{name:<30} {said}")
    results = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "packages": {each: version(each) for each in ("numpy", "scikit-learn")},
        "pairs": PAIRS,
        "rounds": ROUNDS,
        "first": FIRST,
        "cases": kept,
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
