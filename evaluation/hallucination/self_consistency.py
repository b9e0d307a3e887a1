"""Does a model say the same when it is asked again? (SelfCheckGPT, Manakul et al., arXiv 2303.08896)

What a model knows comes back in samples at a temperature above 0; what it makes up differs from sample to sample.
Higher scores mean less consistent, and more likely made up.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.hallucination.entailment import Entailment
from evaluation.hallucination.sentences import sentences

_TOKEN = re.compile(r"\w+|[^\w\s]")
START = "<s>"


@dataclass(frozen=True)
class NgramScores:
    """Negative log-probabilities of an answer under the n-gram model of all samples and the answer (section 5.3).

    Args:
        average, highest: by sentence, over its tokens.
        answer_average: over all tokens of the answer.
        answer_highest: mean over sentences of their highest.
    """

    average: tuple[float, ...]
    highest: tuple[float, ...]
    answer_average: float
    answer_highest: float


def ngram_scores(answer: str, samples: Sequence[str], n: int = 1) -> NgramScores:
    """How surprising an answer's n-grams are among the samples, without smoothing; the answer is one of the texts.

    Args:
        samples: further answers to the same prompt, at a temperature above 0.
        n: 1 is the paper's best.

    Raises:
        ValueError: the answer has no word.
    """
    of_answer = [_ngrams(sentence.text, n) for sentence in sentences(answer)]
    if not of_answer:
        raise ValueError("an answer without a word can't be scored")
    counts = Counter(gram for sentence in of_answer for gram in sentence)
    counts.update(gram for sample in samples for sentence in sentences(sample) for gram in _ngrams(sentence.text, n))
    total = sum(counts.values())
    costs = [[-math.log(counts[gram] / total) for gram in sentence] for sentence in of_answer]
    highest = tuple(max(sentence) for sentence in costs)
    return NgramScores(
        average=tuple(sum(sentence) / len(sentence) for sentence in costs),
        highest=highest,
        answer_average=sum(map(sum, costs)) / sum(map(len, costs)),
        answer_highest=sum(highest) / len(highest),
    )


def entailment_scores(answer: str, samples: Sequence[str], entailment: Entailment, question: str = "") -> list[float]:
    """By sentence, how far the samples contradict it on average (section 5.4, equation 10).

    Args:
        samples: further answers to the same prompt; each is the premise, the sentence the hypothesis.
        question: stands before both, where answers are too short to be understood alone.

    Raises:
        ValueError: there is no sample.
    """
    if not samples:
        raise ValueError("consistency needs samples to compare with")
    parts = sentences(answer)
    start = f"{question} " if question else ""
    asked = [(f"{start}{sample}", f"{start}{part.text}") for part in parts for sample in samples]
    verdicts = iter(entailment(asked))
    scores = []
    for _ in parts:
        of_sentence = [next(verdicts) for _ in samples]
        # As in the paper, neutral is left out.
        scores.append(sum(v.contradicts / (v.entails + v.contradicts) for v in of_sentence) / len(samples))
    return scores


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    tokens = [START] * (n - 1) + _TOKEN.findall(text.lower())
    return [tuple(tokens[place : place + n]) for place in range(len(tokens) - n + 1)]
