"""How often 95% intervals hold the true difference: python tests/benchmarks/coverage_intervals.py"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from evaluation.statistics import paired_bootstrap, wilson

RESULTS = Path(__file__).parent / "results" / "coverage_intervals.json"
# Fewer than a report's 10,000: what they add to an interval's noise is small beside what the items do.
RESAMPLES = 1_000

Drawn = tuple[np.ndarray, np.ndarray]


def right_or_wrong(rng: np.random.Generator, items: int, hard: np.ndarray) -> Drawn:
    """Base right on half, tuned on six in ten, both more often on the same prompts."""
    draws = rng.random((2, items))
    return (draws[0] < 0.5 + 0.3 * hard).astype(float), (draws[1] < 0.6 + 0.3 * hard).astype(float)


def rarely_different(rng: np.random.Generator, items: int, hard: np.ndarray) -> Drawn:
    """Two models that differ on one item in ten, three times in four for the better."""
    base = (rng.random(items) < 0.5).astype(float)
    flips = rng.random(items)
    gained, lost = flips < 0.075, flips > 0.975
    return np.where(lost, 1.0, np.where(gained, 0.0, base)), np.where(gained, 1.0, np.where(lost, 0.0, base))


def costly_errors(rng: np.random.Generator, items: int, hard: np.ndarray) -> Drawn:
    """Scores at t = 0.75: right 1, abstained 0, wrong -3; the tuned model abstains more and is wrong less."""
    values = np.array([1.0, 0.0, -3.0])
    return rng.choice(values, items, p=(0.5, 0.1, 0.4)), rng.choice(values, items, p=(0.45, 0.4, 0.15))


def skewed(rng: np.random.Generator, items: int, hard: np.ndarray) -> Drawn:
    """A difference that is exponential, less its mean, plus 0.2, on prompts that have an effect of their own."""
    return np.zeros(items), rng.exponential(1, items) - 1 + 0.2 + 0.5 * hard


# What is drawn, and the true difference.
KINDS: dict[str, tuple[Callable[[np.random.Generator, int, np.ndarray], Drawn], float]] = {
    "right or wrong": (right_or_wrong, 0.1),
    "rarely different": (rarely_different, 0.05),
    "score at 0.75": (costly_errors, (0.45 - 3 * 0.15) - (0.5 - 3 * 0.4)),
    "skewed": (skewed, 0.2),
}


def covered(kind: str, prompts: int, a_prompt: int, seed: int, resamples: int = RESAMPLES) -> bool:
    """Whether the interval of one made-up evaluation holds the true difference."""
    rng = np.random.default_rng(seed)
    draw, truth = KINDS[kind]
    clusters = np.repeat(np.arange(prompts), a_prompt)
    hard = np.repeat(rng.uniform(-1, 1, prompts), a_prompt)
    base, tuned = draw(rng, len(clusters), hard)
    _, low, high = paired_bootstrap(base, tuned, clusters.tolist(), resamples=resamples, seed=seed)
    return low is not None and high is not None and bool(low <= truth <= high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=1_000)
    parser.add_argument("--prompts", type=int, nargs="+", default=[50, 100, 200])
    options = parser.parse_args()
    kept = []
    print(f"{'values':<20} {'prompts':>8} {'items each':>11} {'coverage':>9} {'95% interval':>16}")
    start = time.monotonic()
    for kind in KINDS:
        for prompts in options.prompts:
            for a_prompt in (1, 3):
                held = sum(covered(kind, prompts, a_prompt, seed) for seed in range(options.simulations))
                low, high = wilson(held, options.simulations)
                share = held / options.simulations
                print(
                    f"{kind:<20} {prompts:>8} {a_prompt:>11} {share:>9.1%} {f'{low:.1%} to {high:.1%}':>16}",
                    flush=True,
                )
                kept.append({"values": kind, "prompts": prompts, "items_each": a_prompt, "coverage": share})
                kept[-1] |= {"low": low, "high": high, "n": options.simulations}
    result = {"date": datetime.now(UTC).date().isoformat(), "seconds": round(time.monotonic() - start)}
    result |= {"versions": {name: version(name) for name in ("numpy", "scipy")}, "settings": kept}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
