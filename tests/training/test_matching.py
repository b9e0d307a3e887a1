"""Accepted answers are found in other words, and agree with people at least as often as exact match does."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from training.matching import exact_match, matches, words


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("The  Beatles!", "beatles", True),
        ("a fox.", "fox", True),
        ("fox and hound", "fox", False),
        ("", "", False),
        ("the", "a", False),
        ("CAFÉ", "café", True),
        ("ﬁg", "fig", True),
    ],
)
def test_exact_match_is_squads(answer: str, reference: str, same: bool) -> None:
    assert exact_match(answer, reference) is same
    assert matches(answer, reference) is same


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Nine", "9"),
        ("twenty-five", "25"),
        ("1,200", "1200"),
        ("Beyonce", "Beyoncé"),
        ("Kareem Abdul - Jabbar", "Kareem Abdul-Jabbar"),
        ("He\u00adlium", "Helium"),
        ("Sanaa McCoy Lathan", "Sanaa Lathan"),
        ("J. R. R. Tolkien", "J. Tolkien"),
        ("October 5, 2014", "5 October 2014"),
        ("October 5th, 2014", "5 October 2014"),
        ("in 2014", "October 5, 2014"),
        ("December 1972", "14 December 1972 UTC"),
        ("It is Paris.", "Paris"),
        ("The capital of France is Paris. It lies on the Seine.", "paris"),
        ("He was born in 1990.", "1990"),
        ("He was born on 5 October 2014 in Leeds.", "October 5, 2014"),
        ("It has 53 players.", "53"),
        ("Ohio State's Archie Griffin", "Archie Griffin"),
    ],
)
def test_other_words_for_the_same(answer: str, reference: str) -> None:
    assert matches(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("It is not Paris.", "Paris"),
        ("It isn't Paris.", "Paris"),
        ("Paris or Rome", "Paris"),
        ("It is Rome. Paris is in France.", "Paris"),
        ("Parisian", "Paris"),
        ("2015", "October 5, 2014"),
        ("October 6, 2014", "October 5, 2014"),
        ("October 5, 2014", "2014-10-06"),
        ("April 20, 1777", "April 1777"),
        ("In 2014 he was born in 1990.", "1990"),
        ("9", "90"),
        ("Toronto", "Toronto, Ontario, Canada"),
        ("Jane Austen", "Jane Eyre"),
    ],
)
def test_what_is_not_the_same(answer: str, reference: str) -> None:
    assert not matches(answer, reference)


def test_numbers_and_accents_in_words() -> None:
    assert words("Twenty five Mötley seasons, the first of 1,000") == ["25", "motley", "seasons", "first", "of", "1000"]


def test_people_agree_with_it_more_often_than_with_exact_match(shared_data: Path) -> None:
    """On answers of the EfficientQA competition that people rated as definitely right or definitely wrong."""
    lines = (shared_data / "nq-open" / "efficientqa_rated.jsonl").read_text(encoding="utf-8").splitlines()
    rated = [
        (answer, row["answer"], kind == "def_correct_predictions")
        for row in map(json.loads, lines)
        for kind in ("def_correct_predictions", "def_incorrect_predictions")
        for answer in row[kind]
    ]

    def agreement(rule: Callable[[str, str], bool]) -> float:
        return sum(any(rule(answer, one) for one in accepted) is right for answer, accepted, right in rated) / len(
            rated
        )

    assert len(rated) > 2900
    assert agreement(matches) > 0.88 > 0.85 > agreement(exact_match)
