"""`feedback judge` by a reward model: the probability that one answer of a candidate is preferred to another."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from feedback.argilla.progress import Progress
from feedback.constitution.judge import PairVerdict, preference, ranked
from feedback.database import Database
from feedback.schema import TIE, Candidate, Judgement, Rater, grounded_prompt
from feedback.workspace import Workspace

SOURCE = "reward model"
# So many answers are scored and written together.
CHUNK = 2000


class AnswerScorer(Protocol):
    """Scores answers, the higher the better; `name` is the model as judgements record it."""

    name: str

    def __call__(self, prompts: Sequence[Sequence[Mapping[str, str]]], answers: Sequence[str]) -> Sequence[float]: ...


@dataclass
class Scored:
    """What a job did.

    Args:
        new: judgements, `ties` of them undecided; `standing` were there already.
        single: candidates with fewer than two different answers.
    """

    new: int = 0
    ties: int = 0
    standing: int = 0
    single: int = 0


def judge(workspace: Workspace, scorer: AnswerScorer, collection: str, say: Callable[[str], None]) -> Scored:
    """Judge every candidate that this model has not judged before.

    Of two answers the better one is preferred with the probability of Bradley and Terry, the sigmoid of what their
    scores differ by; more than two are ranked.

    Raises:
        UserError: no such collection.
    """
    result = Scored()
    rater = Rater(kind="ai", name=scorer.name)
    with Database(workspace.database) as database:
        database.require([collection])
        standing = {
            judgement.candidate_id
            for judgement in database.judgements([collection])
            if judgement.rater == rater and judgement.source == SOURCE
        }
        progress = Progress(database.collections()[collection]["candidates"], f"{rater.name} judges {collection}", say)
        for chunk in _chunks(database.candidates([collection])):
            pending = []
            for candidate in chunk:
                if len({response.text for response in candidate.responses}) < 2:
                    result.single += 1
                elif candidate.id in standing:
                    result.standing += 1
                else:
                    pending.append(candidate)
            progress.total -= len(chunk) - len(pending)
            made = _judgements(scorer, pending, rater)
            result.ties += sum(judgement.preferred == TIE for judgement in made)
            result.new += database.add(collection, judgements=made).judgements
            progress.step(len(pending))
    return result


def bradley_terry(left: float, right: float) -> float:
    """The probability that the answer with the score `left` is preferred."""
    # Of a large difference the exponential is 0 in this form, where it would overflow in the other.
    small = math.exp(-abs(left - right))
    return (1.0 if left >= right else small) / (1.0 + small)


def _judgements(scorer: AnswerScorer, candidates: Sequence[Candidate], rater: Rater) -> list[Judgement]:
    prompts, answers = [], []
    for candidate in candidates:
        prompt = [m.model_dump() for m in grounded_prompt(candidate.prompt, candidate.context)]
        prompts += [prompt] * len(candidate.responses)
        answers += [response.text for response in candidate.responses]
    scores = iter(scorer(prompts, answers) if answers else [])
    return [_judgement(c, [next(scores) for _ in c.responses], rater) for c in candidates]


def _judgement(candidate: Candidate, scores: Sequence[float], rater: Rater) -> Judgement:
    verdicts = [
        PairVerdict(left, right, (p, p), ())
        for left, right in combinations(range(len(scores)), 2)
        for p in (bradley_terry(scores[left], scores[right]),)
    ]
    return Judgement(
        candidate_id=candidate.id,
        rater=rater,
        source=SOURCE,
        evidence={"scores": " ".join(f"{score:.6f}" for score in scores)},
        **(preference(verdicts[0]) if len(scores) == 2 else ranked(candidate, verdicts)),
    )


def _chunks(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    chunk: list[Candidate] = []
    size = 0
    for candidate in candidates:
        chunk.append(candidate)
        size += len(candidate.responses)
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
