"""Grading: what counts as right, as abstaining and as wrong, and what each is worth."""

import math

import pytest

from evaluation.hallucination.closed_book import abstains, grade, matches, mean_defined, process_results, score


@pytest.mark.parametrize(
    "answer",
    [
        "I don't know.",
        "I don’t know",
        "I do not know who that is.",
        "Sorry, I don't know that.",
        "I'm sorry, but I cannot answer that.",
        "I'm not sure.",
        "I am not sure who wrote it.",
        "I have no idea.",
        "I have no information about this person.",
        "That is unknown.",
        "It's impossible to say.",
        "There is no information on that.",
        "Unknown",
        "No idea!",
        "I really don't know",
        "Unfortunately, I can't say.",
        "I'm afraid I don't have that information.",
    ],
)
def test_an_abstention_in_many_wordings(answer: str) -> None:
    assert abstains(answer)
    assert grade(answer, ["Paris"]) == "abstained"
    assert grade(answer, []) == "abstained"


@pytest.mark.parametrize(
    "answer",
    [
        "Paris.",
        "You may know it as Paris.",
        "I know: Paris.",
        "I don't know, but I think it is Paris.",
        "The Unknown Soldier",
        "Nobody knows her better than Ann.",
        "",
        "No.",
        "I can answer that: Paris.",
    ],
)
def test_an_answer_is_no_abstention(answer: str) -> None:
    assert not abstains(answer)
    assert grade(answer, []) == "incorrect"


def test_an_accepted_answer_is_right_even_if_it_reads_like_an_abstention() -> None:
    assert grade("Unknown", ["unknown"]) == "correct"


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
def test_answers_match_after_normalisation(answer: str, reference: str, same: bool) -> None:
    assert matches(answer, reference) is same


def test_the_score_makes_guessing_pay_only_above_its_threshold() -> None:
    assert score("correct", 0.75) == 1
    assert score("abstained", 0.75) == 0
    assert score("incorrect", 0.75) == pytest.approx(-3)
    for threshold in (0.5, 0.75, 0.9):
        expected_at_threshold = threshold * score("correct", threshold) + (1 - threshold) * score(
            "incorrect", threshold
        )
        assert expected_at_threshold == pytest.approx(0)


def test_metrics_are_defined_only_where_they_mean_something() -> None:
    answerable = process_results({"answers": ["fox"]}, ["I don't know."])
    assert (answerable["accuracy"], answerable["abstention_rate"], answerable["score@0.75"]) == (0, 1, 0)
    assert math.isnan(answerable["hallucination_rate"])
    invented = process_results({"answers": []}, ["fox"])
    assert invented["hallucination_rate"] == 1
    assert invented["score@0.5"] == -1
    assert math.isnan(invented["accuracy"])
    assert mean_defined([1.0, math.nan, 0.0]) == 0.5
    assert math.isnan(mean_defined([math.nan]))
