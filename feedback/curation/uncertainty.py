"""How much the judges leave open between the answers of a candidate: what a person had best look at next.

Query by committee (Seung, Opper & Sompolinsky, COLT 1992) asks for what the members of a committee disagree on. Their
votes here are probabilities, and what counts is how near to one half their mean lies: judges contradict each other, or
agree that they can't tell. Of one judge alone, be it a constitution's or a reward model, it is uncertainty sampling
(Lewis & Gale, SIGIR 1994). Between two answers this puts pairs in the same order as the entropy of the votes does
(Dagan & Engelson, ICML 1995), and its steps are even.
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations
from statistics import fmean

from feedback.curation.aggregate import pairwise_votes
from feedback.schema import REVISION, Candidate, Judgement

# Finer differences are noise; what is equal to so many digits need not be written anew.
DECIMALS = 3


def uncertainty(candidate: Candidate, judgements: Iterable[Judgement]) -> float:
    """1 - |2p - 1|, p being the judges' mean probability that one answer is the better one; the mean over all pairs.

    Whatever an AI has said of a pair counts, a reward model's probability like a constitution's; of several judgements
    of one judge (by different principles) the mean. What people said does not.

    Returns:
        0 where all judges are certain of the same, or the answers don't differ, up to 1; a pair that no judge has
        compared is as open as can be.
    """
    stated: dict[tuple[int, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for judgement in judgements:
        if by_a_judge(judgement):
            for better, other, probability in pairwise_votes(candidate, judgement):
                first = probability if better < other else 1 - probability
                stated[min(better, other), max(better, other)][judgement.rater.name].append(first)
    texts = [response.text for response in candidate.responses]
    open_ = [
        1 - abs(2 * fmean(map(fmean, stated[pair].values())) - 1) if pair in stated else 1.0
        for pair in combinations(range(len(texts)), 2)
        if texts[pair[0]] != texts[pair[1]]
    ]
    return round(fmean(open_), DECIMALS) if open_ else 0.0


def by_a_judge(judgement: Judgement) -> bool:
    """Whether an AI compared the answers; that a revision is better than what it revised is only supposed."""
    return judgement.rater.kind == "ai" and judgement.source != REVISION
