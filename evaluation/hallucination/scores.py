"""One figure an answer from each method: the higher, the likelier made up; NaN where the method says nothing of it."""

import math
from collections.abc import Sequence

from evaluation.hallucination.claims import Claim
from evaluation.hallucination.entailment import Entailment
from evaluation.hallucination.self_consistency import entailment_scores, ngram_scores
from evaluation.hallucination.semantic_entropy import by_entailment, by_wording, clusters, semantic_entropy
from evaluation.hallucination.sentences import sentences


def inconsistency(answer: str, samples: Sequence[str]) -> float:
    """SelfCheckGPT's unigram score: the mean over sentences of their most surprising word."""
    return ngram_scores(answer, samples).answer_highest if samples and sentences(answer) else math.nan


def contradiction(question: str, answer: str, samples: Sequence[str], entailment: Entailment) -> float:
    """SelfCheckGPT's entailment score: how far the samples contradict the sentences, on average."""
    scores = entailment_scores(answer, samples, entailment, question) if samples else ()
    return sum(scores) / len(scores) if scores else math.nan


def entropy(question: str, samples: Sequence[str], entailment: Entailment | None) -> float:
    """Semantic entropy of the samples; without an entailment model by their wording."""
    same = by_entailment(question, entailment) if entailment else by_wording
    return semantic_entropy(clusters(samples, same)) if samples else math.nan


def of_claims(claims: Sequence[Claim]) -> dict[str, float]:
    """Shares of an answer's claims that the corpus does not support, and that it contradicts; of no claims, none."""
    n = max(1, len(claims))
    return {
        "unsupported": sum(claim.support != "supported" for claim in claims) / n,
        "contradicted": sum(claim.support == "contradicted" for claim in claims) / n,
    }
