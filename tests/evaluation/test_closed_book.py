"""Grading: what counts as right, as abstaining and as wrong, and what each is worth."""

import math

import pytest

from evaluation.hallucination.closed_book import grade, mean_defined, process_results, score


@pytest.mark.parametrize(
    ("answer", "references", "outcome"),
    [
        ("I don't know.", ["Paris"], "abstained"),
        ("I don't know.", [], "abstained"),
        ("It is Paris.", ["Lutetia", "Paris"], "correct"),
        ("It is Rome.", ["Paris"], "incorrect"),
        ("It is Rome.", [], "incorrect"),
        ("", [], "incorrect"),
    ],
)
def test_an_answer_is_correct_abstained_or_incorrect(answer: str, references: list[str], outcome: str) -> None:
    assert grade(answer, references) == outcome


def test_an_accepted_answer_is_right_even_if_it_reads_like_an_abstention() -> None:
    assert grade("Unknown", ["unknown"]) == "correct"


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
