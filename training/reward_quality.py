"""How good a reward model is on pairs that it was not trained on, beside a baseline that knows lengths only."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import StatisticsError, correlation, fmean
from typing import Any

from feedback.curation.intervals import wilson


@dataclass(frozen=True)
class Judged:
    """A prompt whose answers were scored.

    Args:
        rewards: of each answer.
        lengths: of each answer, in tokens.
        pairs: places of the better and the worse answer, and the probability that the better one is.
    """

    rewards: Sequence[float]
    lengths: Sequence[int]
    pairs: Sequence[tuple[int, int, float]]


def quality(judged: Sequence[Judged], longer_wins: bool) -> dict[str, float]:
    """Figures for the metrics' line, without a name where they can't be had.

    Returns:
        accuracy of the `n` pairs that people decided, with Wilson's interval of 95% (accuracy_low, accuracy_high);
        length_accuracy of a baseline that always takes the longer answer, or always the shorter one, a tie being half
        right; accuracy_longer and accuracy_shorter where the better answer is the longer or the shorter one; margin,
        the mean of better minus worse; mean_reward; length_correlation of reward and length over all answers.

    Args:
        longer_wins: whether the baseline takes the longer answer.
    """
    decided = [
        (j.rewards[b] - j.rewards[w], j.lengths[b] - j.lengths[w]) for j in judged for b, w, p in j.pairs if p > 0.5
    ]
    rewards = [reward for j in judged for reward in j.rewards]
    lengths = [float(length) for j in judged for length in j.lengths]
    found: dict[str, float] = {"mean_reward": fmean(rewards)}
    if decided:
        right = [difference > 0 for difference, _ in decided]
        low, high = wilson(sum(right), len(decided))
        longer = [hit for hit, (_, extra) in zip(right, decided, strict=True) if extra > 0]
        shorter = [hit for hit, (_, extra) in zip(right, decided, strict=True) if extra < 0]
        found |= {
            "n": len(decided),
            "accuracy": fmean(right),
            "accuracy_low": low,
            "accuracy_high": high,
            "length_accuracy": fmean(_by_length(extra, longer_wins) for _, extra in decided),
            "margin": fmean(difference for difference, _ in decided),
        }
        found |= {f"accuracy_{name}": fmean(hits) for name, hits in (("longer", longer), ("shorter", shorter)) if hits}
    # It has none where all answers are of one length or one reward.
    with suppress(StatisticsError):
        found["length_correlation"] = correlation(rewards, lengths)
    return found


def sentence(metrics: Mapping[str, float]) -> str:
    """What `quality` found, from a metrics' line, for a person; empty where no pair was decided."""
    if "eval_accuracy" not in metrics:
        return ""
    accuracy, low, high, by_length = (
        f"{metrics[f'eval_{name}']:.1%}" for name in ("accuracy", "accuracy_low", "accuracy_high", "length_accuracy")
    )
    return (
        f"of {metrics['eval_n']} held-out pairs it prefers the better answer in {accuracy} ({low} to {high}, 95%); "
        f"going by length alone would be right in {by_length}"
    )


def longer_is_better(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether on these pairs, those of training, taking the longer answer is right more often than not."""
    signs = [
        _by_length(len(row["answers"][b]) - len(row["answers"][w]), True)
        for row in rows
        for b, w in zip(row["better"], row["worse"], strict=True)
    ]
    return fmean(signs) >= 0.5


def _by_length(extra: int, longer_wins: bool) -> float:
    """Whether the rule finds the better answer, which is so many tokens longer than the other."""
    return 0.5 if extra == 0 else float((extra > 0) == longer_wins)
