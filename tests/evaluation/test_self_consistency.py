"""Consistency over samples: n-gram scores as selfcheckgpt gives them, contradiction by an entailment model."""

from collections.abc import Sequence

import pytest

from evaluation.hallucination.entailment import Verdict
from evaluation.hallucination.self_consistency import entailment_scores, ngram_scores
from evaluation.hallucination.sentences import sentences

ANSWER = "Ada Lovelace was born in London in 1815. She wrote the first program, for Babbage's engine."
SAMPLES = [
    "Ada Lovelace was born in 1815 in London. She worked with Charles Babbage.",
    "She was an English mathematician. She was born in Kent in 1816.",
    "Ada wrote about the Analytical Engine!",
]


@pytest.mark.parametrize(
    ("n", "average", "highest", "answer_average", "answer_highest"),
    [
        (1, (2.8165802803, 3.5471643885), (3.3499040873, 4.0430512678), 3.2340569135, 3.6964776776),
        (2, (3.3687817580, 3.9275267377), (4.0430512678, 4.0430512678), 3.6880646036, 4.0430512678),
        (3, (3.5678661435, 3.9275267377), (4.0430512678, 4.0430512678), 3.7733864831, 4.0430512678),
    ],
)
def test_ngram_scores_are_those_of_selfcheckgpt(
    n: int, average: tuple[float, ...], highest: tuple[float, ...], answer_average: float, answer_highest: float
) -> None:
    """The figures are what selfcheckgpt 0.1.7's UnigramModel and NgramModel gave on the same sentences and tokens."""
    scores = ngram_scores(ANSWER, SAMPLES, n)
    assert scores.average == pytest.approx(average)
    assert scores.highest == pytest.approx(highest)
    assert scores.answer_average == pytest.approx(answer_average)
    assert scores.answer_highest == pytest.approx(answer_highest)


def test_what_samples_repeat_costs_less_than_what_they_do_not() -> None:
    repeated = ngram_scores("He lives in Ashby.", ["He lives in Ashby."] * 4).answer_average
    varied = [f"He lives in {town}." for town in ("Quill", "Garth", "Foxley", "Kelder")]
    assert ngram_scores("He lives in Ashby.", varied).answer_average > repeated


def test_an_answer_without_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match="without a word"):
        ngram_scores("  ", SAMPLES)


def test_a_sentence_scores_the_mean_contradiction_of_the_samples() -> None:
    asked: list[tuple[str, str]] = []

    def entailment(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        asked.extend(pairs)
        return [Verdict(0.1, 0.5, 0.4) if "Kent" in premise else Verdict(0.6, 0.2, 0.2) for premise, _ in pairs]

    scores = entailment_scores(ANSWER, SAMPLES, entailment)
    # Neutral is left out: 0.4 / 0.5 from the sample that speaks of Kent, 0.2 / 0.8 from the two others.
    assert scores == pytest.approx([(0.8 + 0.25 + 0.25) / 3] * 2)
    assert asked[:3] == [(sample, "Ada Lovelace was born in London in 1815.") for sample in SAMPLES]
    with pytest.raises(ValueError, match="needs samples"):
        entailment_scores(ANSWER, [], entailment)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It costs 3.50 euros. Yes.", ["It costs 3.50 euros.", "Yes."]),
        ("J. R. R. Tolkien wrote it. Dr. Who did not.", ["J. R. R. Tolkien wrote it.", "Dr. Who did not."]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("a line\nanother\n\nthird", ["a line", "another", "third"]),
        ("no end", ["no end"]),
        ("  ", []),
    ],
)
def test_sentences_stand_where_they_say(text: str, parts: list[str]) -> None:
    found = sentences(text)
    assert [part.text for part in found] == parts
    assert all(text[part.start : part.end] == part.text for part in found)
