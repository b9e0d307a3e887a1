"""How many different things does a model say when it is asked again? (Farquhar et al., Nature 630, 2024)

Samples that mean the same share a cluster; the entropy over clusters is high where the model makes things up. Also
Kuhn et al., arXiv 2302.09664.
"""

import math
from collections.abc import Callable, Sequence

from evaluation.hallucination.entailment import Entailment
from training.abstention import abstains
from training.matching import matches

# Whether two answers to one question mean the same.
SameMeaning = Callable[[str, str], bool]


def clusters(answers: Sequence[str], same: SameMeaning) -> list[int]:
    """The number of each answer's cluster, in order of first appearance (2302.09664, algorithm 1).

    An answer joins the first cluster whose first member means the same.
    """
    first_members: list[str] = []
    numbers = []
    for answer in answers:
        for number, member in enumerate(first_members):
            if same(member, answer):
                numbers.append(number)
                break
        else:
            numbers.append(len(first_members))
            first_members.append(answer)
    return numbers


def semantic_entropy(numbers: Sequence[int], log_probabilities: Sequence[float] | None = None) -> float:
    """Entropy over clusters, in nats.

    Args:
        numbers: the cluster of each answer.
        log_probabilities: of each answer's sequence under the model; a cluster then weighs the sum of its answers'
            probabilities (equation 3 of 2302.09664), over that of all. None counts answers (the discrete form).

    Raises:
        ValueError: there is no answer.
    """
    if not numbers:
        raise ValueError("entropy needs answers")
    weights = [1.0] * len(numbers)
    if log_probabilities is not None:
        highest = max(log_probabilities)
        weights = [math.exp(value - highest) for value in log_probabilities]
    total = math.fsum(weights)
    shares = [
        math.fsum(w for w, own in zip(weights, numbers, strict=True) if own == number) / total
        for number in set(numbers)
    ]
    return max(0.0, -math.fsum(share * math.log(share) for share in shares if share > 0))


def by_entailment(question: str, entailment: Entailment) -> SameMeaning:
    """Two answers mean the same where each entails the other, read after the question."""

    def same(one: str, other: str) -> bool:
        pair = (f"{question} {one}", f"{question} {other}")
        return all(verdict.label == "entails" for verdict in entailment([pair, pair[::-1]]))

    return same


def by_wording(one: str, other: str) -> bool:
    """Two short answers mean the same where the one is what the other accepts, or where both decline to answer."""
    declined = abstains(one), abstains(other)
    if any(declined):
        return all(declined)
    return one.strip() == other.strip() or matches(one, other) or matches(other, one)
