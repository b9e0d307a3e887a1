"""Several raters' judgements to one probability for each pair of answers."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations

from feedback.schema import BOTH_BAD, TIE, Candidate, Judgement, Message, PreferencePair, grounded_prompt

# A pair is the same pair whichever answer stands first and whichever collection it came from.
PairKey = tuple[tuple[Message, ...], str, str]


@dataclass
class Votes:
    """What was said of the unordered pair (first, second), `first` sorting before `second`."""

    for_first: list[float] = field(default_factory=list)
    both_bad: int = 0
    judgements: list[str] = field(default_factory=list)


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


def collect_votes(candidates: Iterable[Candidate], judgements: Iterable[Judgement]) -> dict[PairKey, Votes]:
    """Every vote on every pair of distinct answers to the same prompt."""
    by_id = {candidate.id: candidate for candidate in candidates}
    votes: dict[PairKey, Votes] = defaultdict(Votes)
    for judgement in judgements:
        candidate = by_id[judgement.candidate_id]
        prompt = grounded_prompt(candidate.prompt, candidate.context)
        for left, right, probability in pairwise_votes(candidate, judgement):
            a, b = candidate.responses[left].text, candidate.responses[right].text
            pair = votes[(prompt, min(a, b), max(a, b))]
            pair.for_first.append(probability if a <= b else 1 - probability)
            pair.both_bad += judgement.preferred == BOTH_BAD
            pair.judgements.append(judgement.id)
    return votes


def decide(key: PairKey, votes: Votes) -> PreferencePair | str:
    """The pair that the votes make, by their mean, or the reason why they make none."""
    prompt, first, second = key
    if first == second:
        return "identical answers"
    if votes.both_bad * 2 > len(votes.for_first):
        return "both bad"
    mean = sum(votes.for_first) / len(votes.for_first)
    if mean == 0.5:
        return "tie" if all(vote == 0.5 for vote in votes.for_first) else "conflict"
    chosen, rejected = (first, second) if mean > 0.5 else (second, first)
    if not chosen.strip():
        return "empty chosen answer"
    return PreferencePair(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        probability=max(mean, 1 - mean),
        judgements=tuple(sorted(set(votes.judgements))),
    )
