"""Several raters' judgements to one probability for each pair of answers."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import fsum

from feedback.schema import BOTH_BAD, TIE, Candidate, Judgement, Message, PreferencePair, grounded_prompt

# A pair is the same pair whichever answer stands first and whichever collection it came from: the prompt, and the two
# answers in the order of their text.
PairKey = tuple[tuple[Message, ...], str, str]


@dataclass(frozen=True)
class Vote:
    """What one judgement says of a pair.

    Args:
        rater: name and kind, as `ann (human)`.
        for_first: probability that the answer that sorts first is the better one; 0.5 is a tie.
    """

    rater: str
    kind: str
    for_first: float
    both_bad: bool
    judgement: str


def pairwise_votes(candidate: Candidate, judgement: Judgement) -> Iterator[tuple[int, int, float]]:
    """The pairs (better or equal, other, probability) that a judgement states.

    A ranking of K responses states all K(K-1)/2 pairs (InstructGPT, arXiv 2203.02155, section 3.5).

    Raises:
        ValueError: an index is outside the candidate's responses, or the preferred one of several is given without
            a ranking that orders the rest.
    """
    count = len(candidate.responses)
    if judgement.ranking is not None:
        places = {index: place for place, group in enumerate(judgement.ranking) for index in group}
        if any(index >= count for index in places):
            raise ValueError(f"the ranking names response {max(places)}, there are {count}")
        for left, right in combinations(sorted(places), 2):
            if places[left] == places[right]:
                yield left, right, 0.5
            else:
                better, worse = sorted((left, right), key=places.__getitem__)
                yield better, worse, judgement.probability
    elif judgement.preferred in (TIE, BOTH_BAD):
        yield from ((left, right, 0.5) for left, right in combinations(range(count), 2))
    elif isinstance(judgement.preferred, int):
        if judgement.preferred >= count:
            raise ValueError(f"response {judgement.preferred} is preferred, there are {count}")
        yield from (
            (judgement.preferred, other, judgement.probability)
            for other in range(count)
            if other != judgement.preferred
        )


def votes_on(candidate: Candidate, judgement: Judgement) -> Iterator[tuple[PairKey, Vote]]:
    """The judgement's vote on every pair of answers that it states."""
    prompt = grounded_prompt(candidate.prompt, candidate.context)
    rater = f"{judgement.rater.name} ({judgement.rater.kind})"
    both_bad = judgement.preferred == BOTH_BAD
    for left, right, probability in pairwise_votes(candidate, judgement):
        a, b = candidate.responses[left].text, candidate.responses[right].text
        for_first = probability if a <= b else 1 - probability
        yield (prompt, min(a, b), max(a, b)), Vote(rater, judgement.rater.kind, for_first, both_bad, judgement.id)


def words_for_first(votes: Iterable[Vote]) -> dict[str, float]:
    """What each rater says, of several votes of one the mean: a judge by many principles is one judge."""
    by_rater: dict[str, list[float]] = defaultdict(list)
    for vote in votes:
        by_rater[vote.rater].append(vote.for_first)
    return {rater: fsum(theirs) / len(theirs) for rater, theirs in by_rater.items()}


def mean_for_first(votes: Iterable[Vote]) -> float:
    """The mean over the raters, exactly the same in whatever order they came."""
    words = words_for_first(votes)
    return fsum(words.values()) / len(words)


def decide(
    key: PairKey, votes: Sequence[Vote], posterior: Sequence[float] | None = None, keep_conflicts: bool = False
) -> PreferencePair | str:
    """The pair that the votes make, or the reason why they make none.

    Args:
        posterior: how probable it is that the first, the second, neither is better, where a model of the raters says
            so; without it the mean over the raters decides.
        keep_conflicts: make a pair of probability 0.5 of opposed votes of equal weight, the first answer chosen.
    """
    prompt, first, second = key
    if first == second:
        return "identical answers"
    if len({vote.rater for vote in votes if vote.both_bad}) * 2 > len({vote.rater for vote in votes}):
        return "both bad"
    if posterior is None:
        for_first = mean_for_first(votes)
        tied = all(vote.for_first == 0.5 for vote in votes)
    else:
        for_first = posterior[0] + posterior[2] / 2
        tied = posterior[2] >= max(posterior[:2])
    if tied:
        return "tie"
    if for_first == 0.5 and not keep_conflicts:
        return "conflict"
    chosen, rejected = (first, second) if for_first >= 0.5 else (second, first)
    if not chosen.strip():
        return "empty chosen answer"
    return PreferencePair(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        probability=max(for_first, 1 - for_first),
        judgements=tuple(sorted({vote.judgement for vote in votes})),
    )
