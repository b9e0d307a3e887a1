"""Entropy over meanings: hand-computed cases, and the clusters it stands on."""

import math
from collections.abc import Sequence

import pytest

from evaluation.hallucination.entailment import Verdict
from evaluation.hallucination.semantic_entropy import by_entailment, clusters, semantic_entropy
from training.matching import matches


def test_entropy_of_counted_answers_by_hand() -> None:
    # Paris three times in two wordings, Rome once: -(3/4 ln 3/4 + 1/4 ln 1/4).
    numbers = clusters(["Paris.", "paris", "Rome.", "Paris"], matches)
    assert numbers == [0, 0, 1, 0]
    assert semantic_entropy(numbers) == pytest.approx(0.5623351446)


def test_entropy_of_weighed_answers_by_hand() -> None:
    # Probabilities 0.2 and 0.1 for one meaning, 0.3 for the other: an even split.
    assert semantic_entropy([0, 0, 1], [math.log(0.2), math.log(0.1), math.log(0.3)]) == pytest.approx(math.log(2))
    # Long answers' probabilities underflow unless the largest is taken out.
    assert semantic_entropy([0, 1], [-2000.0, -2000.0 + math.log(3)]) == pytest.approx(0.5623351446)


def test_one_meaning_has_no_entropy_and_as_many_meanings_as_answers_the_most() -> None:
    assert semantic_entropy([0] * 5) == 0
    assert semantic_entropy([0, 1, 2, 3, 4]) == pytest.approx(math.log(5))
    with pytest.raises(ValueError, match="needs answers"):
        semantic_entropy([])


def test_meanings_are_the_same_where_each_entails_the_other() -> None:
    follows = {("in Paris", "in France"), ("in Paris", "in the city of Paris"), ("in the city of Paris", "in Paris")}
    asked: list[tuple[str, str]] = []

    def entailment(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        asked.extend(pairs)
        bare = [tuple(text.removeprefix("Where? ") for text in pair) for pair in pairs]
        return [Verdict(0.9, 0.1, 0) if pair in follows else Verdict(0.2, 0.8, 0) for pair in bare]

    same = by_entailment("Where?", entailment)
    assert clusters(["in Paris", "in France", "in the city of Paris"], same) == [0, 1, 0]
    assert asked[0] == ("Where? in Paris", "Where? in France")
