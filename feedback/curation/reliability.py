"""How reliable the raters of pairs are, and what that makes of their votes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from feedback.curation.aggregate import Vote, words_for_first

if TYPE_CHECKING:
    from feedback.curation.dawid_skene import Ballots

# Fewer raters of a pair don't tell who of them is right.
OVERLAP = 3
FIRST, SECOND, TIED = range(3)
# Which answer sorts first is arbitrary: a rater's errors are taken to be the same on either side.
MIRRORED = (SECOND, FIRST, TIED)
# Who said what of a pair.
Pattern = tuple[tuple[str, int], ...]


def pattern_of(votes: Sequence[Vote]) -> Pattern:
    """What each rater prefers, not how sure they are: how often a rater is right tells more."""
    words = words_for_first(votes).items()
    return tuple(sorted((rater, TIED if p == 0.5 else FIRST if p > 0.5 else SECOND) for rater, p in words))


class Reliability:
    """The raters by Dawid and Skene's model of what three or more of them said of the same pairs.

    Args:
        patterns: how many pairs have which votes.
    """

    def __init__(self, patterns: Mapping[Pattern, int]) -> None:
        from feedback.curation.dawid_skene import accuracy_intervals, fit

        self.pairs = sum(patterns.values())
        self.raters = {name: i for i, name in enumerate(sorted({rater for votes in patterns for rater, _ in votes}))}
        ordered = sorted(patterns)
        ballots = self._ballots(ordered, [patterns[pattern] for pattern in ordered])
        self.model = fit(ballots, len(self.raters), len(MIRRORED), MIRRORED)
        self._posteriors: dict[Pattern, tuple[float, ...]] = {}
        self.intervals = accuracy_intervals(ballots, self.model, MIRRORED)

    def posterior(self, votes: Sequence[Vote]) -> tuple[float, ...] | None:
        """How probable it is that the first, the second, neither answer is better; None where a rater is not known."""
        pattern = pattern_of(votes)
        if any(rater not in self.raters for rater, _ in pattern):
            return None
        if pattern not in self._posteriors:
            self._posteriors[pattern] = tuple(self.model.posterior(self._ballots([pattern], [1]))[0].tolist())
        return self._posteriors[pattern]

    def _ballots(self, patterns: Sequence[Pattern], times: Sequence[int]) -> "Ballots":
        import numpy as np

        from feedback.curation.dawid_skene import Ballots

        votes = [(i, self.raters[rater], said) for i, pattern in enumerate(patterns) for rater, said in pattern]
        items, raters, labels = np.array(votes).T
        return Ballots(items, raters, labels, np.array(times, dtype=float))
