"""A script that judges the demo's answers as an honest person would. Its judgements say that it is a script."""

from evaluation.hallucination.closed_book import grade
from feedback.schema import Candidate, Judgement, Rater
from ui.demo.world import IDK, Question

RATER = Rater(kind="script", name="scripted-rater")
SOURCE = "demo"
RANKS = {"correct": 0, "abstained": 1, "incorrect": 2}


def rewrite(question: Question, candidate: Candidate) -> Judgement:
    """What the model should have said: the truth where it is known, else that it is not."""
    return Judgement(candidate_id=candidate.id, rater=RATER, source=SOURCE, rewrite=question.answer or IDK)


def rank(question: Question, candidate: Candidate) -> Judgement:
    """Right before abstaining before wrong; answers of the same worth are tied."""
    references = [question.answer] if question.answer else []
    groups: dict[int, list[int]] = {}
    for index, response in enumerate(candidate.responses):
        groups.setdefault(RANKS[grade(response.text, references)], []).append(index)
    ranking = tuple(tuple(groups[place]) for place in sorted(groups))
    return Judgement(candidate_id=candidate.id, rater=RATER, source=SOURCE, ranking=ranking)
