"""Closed-book answers graded correct, incorrect or abstained, and scored so that guessing costs.

The score at confidence threshold t gives +1 for a correct answer, 0 for abstaining and -t/(1-t) for a wrong one, so
that answering pays only above t (Kalai et al., "Why Language Models Hallucinate", arXiv 2509.04664, section 4.2).
"""

import math
import re
import string
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

Outcome = Literal["correct", "incorrect", "abstained"]
THRESHOLDS = (0.5, 0.75, 0.9)

_LEADING = (
    r"(?:(?:well|sorry|unfortunately|apologies|honestly|hmm|no|but|i'm\s+afraid|i\s+am\s+afraid|i'm\s+sorry|i\s+am\s+sorry)"
    r"\b[,.:;\s]*)*"
)
_ABSTENTIONS = re.compile(
    rf"^{_LEADING}(?:that\s+)?(?:"
    r"i\s+(?:(?:really|honestly|just|simply)\s+)?(?:do\s+not|don't|dont)\s+(?:know|have|remember|recall)\b"
    r"|i\s+(?:can\s*not|can't|cannot|could\s+not|couldn't|am\s+unable\s+to|am\s+not\s+able\s+to)\s+"
    r"(?:answer|say|tell|determine|know|find|verify|confirm|provide)\b"
    r"|i'm\s+(?:un(?:able|sure|certain|aware)|not\s+(?:sure|certain|able|aware|familiar))\b"
    r"|i\s+am\s+(?:un(?:sure|certain|aware)|not\s+(?:sure|certain|aware|familiar))\b"
    r"|i\s+have\s+no\s+(?:idea|information|knowledge|record)\b"
    r"|(?:it\s+is|it's|this\s+is|that\s+is|that's)\s+(?:not\s+known|unknown|impossible\s+to\s+(?:say|know|tell)|unclear)\b"
    r"|(?:there\s+is|there's)\s+no\s+(?:information|record|way\s+(?:to|of)\s+know)"
    r"|(?:no\s+idea|unknown|not\s+known|not\s+sure|unsure|cannot\s+say|can't\s+say|don't\s+know|n/?a|idk)\W*$"
    r")"
)
_HEDGED_ANSWER = re.compile(
    r"\b(?:but|although|though)\b[^.]*\b(?:i\s+(?:think|believe|guess)|it\s+(?:is|was|may|might|could))\b"
)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "‘’“”´`")


def grade(answer: str, references: Sequence[str]) -> Outcome:
    """Grade one answer against the accepted ones.

    Args:
        answer: what the model said.
        references: accepted answers; none where the question can't be answered, so that only abstaining is right and
            counts as "abstained".
    """
    if any(matches(answer, reference) for reference in references):
        return "correct"
    return "abstained" if abstains(answer) else "incorrect"


def abstains(answer: str) -> bool:
    """Whether an answer declines to give one. A guess after the disclaimer is an answer; silence is not abstaining."""
    text = " ".join(unicodedata.normalize("NFKC", answer).casefold().replace("’", "'").split())
    return bool(_ABSTENTIONS.match(text)) and not _HEDGED_ANSWER.search(text)


def matches(answer: str, reference: str) -> bool:
    """Equality after SQuAD's normalisation: case, punctuation, articles and white space don't count."""
    return normalise(answer) == normalise(reference) != ""


def normalise(text: str) -> str:
    """SQuAD's answer normalisation (Rajpurkar et al., arXiv 1606.05250, section 6.1), on NFKC text."""
    bare = unicodedata.normalize("NFKC", text).casefold().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def score(outcome: Outcome, threshold: float) -> float:
    """+1, 0 or -t/(1-t), for one answer."""
    return {"correct": 1.0, "abstained": 0.0, "incorrect": -threshold / (1 - threshold)}[outcome]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """Metrics of one question, for lm-eval; NaN where a metric is not defined for it."""
    references = doc["answers"]
    outcome = grade(results[0], references)
    return {
        "accuracy": float(outcome == "correct") if references else math.nan,
        "hallucination_rate": math.nan if references else float(outcome == "incorrect"),
        "abstention_rate": float(outcome == "abstained") if references else math.nan,
        **{f"score@{threshold:g}": score(outcome, threshold) for threshold in THRESHOLDS},
    }


def mean_defined(values: Sequence[float]) -> float:
    """Mean over the questions for which a metric is defined, for lm-eval."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
