"""A script that judges the demo's answers as an honest person would. Its judgements say that it is a script."""

from evaluation.hallucination.closed_book import grade
from feedback.schema import TIE, Candidate, Judgement, Rater
from ui.demo.world import IDK, Question

RATER = Rater(kind="script", name="scripted-rater")
SOURCE = "demo"
RANKS = {"correct": 0, "abstained": 1, "incorrect": 2}


def rewrite(question: Question, candidate: Candidate) -> Judgement:
    """What the model should have said: the truth where it is known, else that it is not."""
    return Judgement(candidate_id=candidate.id, rater=RATER, source=SOURCE, rewrite=question.answer or IDK)


def prefer(question: Question, candidate: Candidate) -> Judgement:
    """The better of two answers: right before abstaining before wrong."""
    references = [question.answer] if question.answer else []
    first, second = (RANKS[grade(response.text, references)] for response in candidate.responses)
    verdict = TIE if first == second else int(second < first)
    return Judgement(candidate_id=candidate.id, rater=RATER, source=SOURCE, preferred=verdict)
