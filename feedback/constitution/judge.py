"""`feedback judge`: a model's preference between the answers of a collection, by the principles of a constitution."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby
from statistics import fmean
from typing import Any

from feedback.argilla.progress import Progress
from feedback.constitution.comparison import Comparison, Judging, Outcome, Tally, choice, compare
from feedback.constitution.generators import TextGenerator
from feedback.constitution.principles import ENSEMBLE, Constitution, Principle, draw, for_workspace
from feedback.database import Database
from feedback.files import content_hash
from feedback.schema import TIE, Candidate, Judgement, Rater
from feedback.workspace import Workspace

SOURCE = "constitution"
# So many comparisons are asked for and written together. They are counted in the collection's order, judged before or
# not, so that a job that goes on makes the batches of one that was never interrupted.
CHUNK = 2000
# Beyond this a probability says more than any model knows, and equal ones could differ.
DECIMALS = 6
RATIONALE_LIMIT = 200_000


@dataclass(frozen=True)
class Choosing:
    """Which principles a candidate is judged by: one that is named, all together, or else one that is drawn."""

    principle: str | None = None
    ensemble: bool = False
    seed: int = 0

    def principles(self, constitution: Constitution, candidate: Candidate) -> list[Principle]:
        """Those that apply; none where the answers were given no text to answer from and the principle needs one.

        Raises:
            UserError: no principle has the name.
        """
        applicable = constitution.applicable(candidate)
        if self.principle:
            named = constitution.named(self.principle)
            return [named] if named in applicable else []
        if self.ensemble or not applicable:
            return applicable
        return [draw(applicable, self.seed, candidate.id)]


@dataclass
class Judged:
    """What a job did.

    Args:
        new: judgements, `ties` of them undecided; `standing` were there already.
        single: candidates with fewer than two different answers; outside: without a principle that applies to them.
        unanswered: candidates that some comparison of got no usable answer; they are asked again another time.
    """

    new: int = 0
    ties: int = 0
    standing: int = 0
    single: int = 0
    outside: int = 0
    unanswered: int = 0
    tally: Tally = field(default_factory=Tally)


def judge(
    workspace: Workspace,
    generator: TextGenerator,
    collection: str,
    choosing: Choosing,
    judging: Judging,
    say: Callable[[str], None],
) -> Judged:
    """Judge every candidate that this judge has not been asked the same of before.

    A candidate of two answers gets a preference. Of more, all pairs are compared, and the answers are ranked by the sum
    of their probabilities of being better than each other one.

    Raises:
        UserError: no such collection or principle, or the model can't be asked.
    """
    constitution = for_workspace(workspace)
    result = Judged()
    rater = Rater(kind="ai", name=generator.name)
    with Database(workspace.database) as database:
        database.require([collection])
        stands = {
            (judgement.candidate_id, judgement.principle): judgement.evidence.get("asked")
            for judgement in database.judgements([collection])
            if judgement.rater == rater and judgement.source == SOURCE
        }
        total = database.collections()[collection]["candidates"]
        progress = Progress(total, f"{generator.name} judges {collection}", say)
        candidates = database.candidates([collection])
        for chunk in _chunks(plan_of(constitution, candidate, choosing, judging) for candidate in candidates):
            pending = []
            for plan in chunk:
                if len({response.text for response in plan.candidate.responses}) < 2:
                    result.single += 1
                elif not plan.comparisons:
                    result.outside += 1
                elif stands.get((plan.candidate.id, plan.principle)) == plan.asked:
                    result.standing += 1
                else:
                    pending.append(plan)
            progress.total -= len(chunk) - len(pending)
            verdicts = answered(generator, pending, judging, result.tally, say)
            made = [
                _judgement(plan, verdict, rater, constitution)
                for plan, verdict in zip(pending, verdicts, strict=True)
                if verdict is not None
            ]
            result.unanswered += len(pending) - len(made)
            result.ties += sum(judgement.preferred == TIE for judgement in made)
            result.new += database.add(collection, judgements=made).judgements
            progress.step(len(pending))
    return result


@dataclass(frozen=True)
class Plan:
    """What is to be asked about a candidate.

    Args:
        principle: the id of the one principle, or that of the ensemble.
        comparisons: pair by pair, each by every principle.
        asked: hash of all prompts, equal only if nothing about them has changed.
    """

    candidate: Candidate
    principle: str
    comparisons: tuple[Comparison, ...]
    asked: str


@dataclass(frozen=True)
class PairVerdict:
    """What the judge makes of one pair, the mean over its principles.

    Args:
        orders: probability that `left` is better, with left as (A) and with right as (A).
    """

    left: int
    right: int
    orders: tuple[float, float]
    outcomes: tuple[tuple[Principle, Outcome], ...]

    @property
    def probability(self) -> float:
        """That `left` is better: the mean of both orders (RLAIF, arXiv 2309.00267, "Addressing Position Bias")."""
        return round(fmean(self.orders), DECIMALS)


def plan_of(constitution: Constitution, candidate: Candidate, choosing: Choosing, judging: Judging) -> Plan:
    """The comparisons of every two different answers of a candidate.

    Raises:
        UserError: no principle has the name that was chosen.
    """
    principles = choosing.principles(constitution, candidate)
    texts = [response.text for response in candidate.responses]
    comparisons = tuple(
        Comparison(candidate, left, right, principle)
        for left, right in combinations(range(len(texts)), 2)
        if texts[left] != texts[right]
        for principle in principles
    )
    prompts = (choice(comparison, swapped, judging) for comparison in comparisons for swapped in (False, True))
    asked = [content_hash([[m.content for m in prompt.messages], prompt.n, prompt.seed]) for prompt in prompts]
    name = ENSEMBLE if choosing.ensemble else principles[0].id if principles else ""
    return Plan(candidate, name, comparisons, content_hash([judging.reasoning, *asked]))


def answered(
    generator: TextGenerator, plans: Sequence[Plan], judging: Judging, tally: Tally, say: Callable[[str], None]
) -> list[tuple[PairVerdict, ...] | None]:
    """The verdicts on each plan's pairs; None where one comparison or more got no usable answer.

    Raises:
        UserError: the model can't be asked.
    """
    comparisons = [comparison for plan in plans for comparison in plan.comparisons]
    outcomes = iter(compare(generator, comparisons, judging, tally, say) if comparisons else [])
    return [_verdicts([(comparison, next(outcomes)) for comparison in plan.comparisons]) for plan in plans]


def _chunks(plans: Iterable[Plan]) -> Iterator[list[Plan]]:
    chunk: list[Plan] = []
    size = 0
    for plan in plans:
        chunk.append(plan)
        size += 1 + len(plan.comparisons)
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _verdicts(said: Sequence[tuple[Comparison, Outcome]]) -> tuple[PairVerdict, ...] | None:
    found = []
    for (left, right), group in groupby(said, key=lambda pair: (pair[0].left, pair[0].right)):
        outcomes = tuple((comparison.principle, outcome) for comparison, outcome in group)
        first, second = ([p for _, o in outcomes if (p := o.orders[order]) is not None] for order in (0, 1))
        if len(first) < len(outcomes) or len(second) < len(outcomes):
            return None
        found.append(PairVerdict(left, right, (fmean(first), fmean(second)), outcomes))
    return tuple(found)


def _judgement(plan: Plan, verdicts: Sequence[PairVerdict], rater: Rater, constitution: Constitution) -> Judgement:
    evidence = {
        "constitution": constitution.name,
        "asked": plan.asked,
        "orders": "; ".join(f"{v.left}:{v.right} {v.orders[0]:.6f} {v.orders[1]:.6f}" for v in verdicts),
    }
    return Judgement(
        candidate_id=plan.candidate.id,
        rater=rater,
        source=SOURCE,
        principle=plan.principle,
        rationale=_rationale(verdicts),
        evidence=evidence,
        **(preference(verdicts[0]) if len(plan.candidate.responses) == 2 else ranked(plan.candidate, verdicts)),
    )


def preference(verdict: PairVerdict) -> dict[str, Any]:
    """The better one of two answers, as a judgement's fields."""
    p = verdict.probability
    if p == 0.5:
        return {"preferred": TIE, "probability": 0.5}
    return {"preferred": verdict.left if p > 0.5 else verdict.right, "probability": round(max(p, 1 - p), DECIMALS)}


def ranked(candidate: Candidate, verdicts: Sequence[PairVerdict]) -> dict[str, Any]:
    """All answers, the one first that is likeliest to be better than the others, as a judgement's fields.

    One probability stands for the whole ranking: the mean over the pairs that it orders.
    """
    count = len(candidate.responses)
    # Equal answers, which nobody was asked about, are equally good.
    better = {(i, j): 0.5 for i in range(count) for j in range(count) if i != j}
    for verdict in verdicts:
        better[verdict.left, verdict.right] = verdict.probability
        better[verdict.right, verdict.left] = 1 - verdict.probability
    scores = [round(sum(better[i, j] for j in range(count) if j != i), DECIMALS) for i in range(count)]
    ordered = [better[i, j] for i, j in better if scores[i] > scores[j]]
    return {
        "ranking": tuple(
            tuple(i for i in range(count) if scores[i] == score) for score in sorted(set(scores), reverse=True)
        ),
        # Preferences that go round in circles can take it below.
        "probability": max(0.5, round(fmean(ordered), DECIMALS)) if ordered else 0.5,
    }


def _rationale(verdicts: Sequence[PairVerdict]) -> str | None:
    """What the judge wrote, with what its letters stood for."""
    parts = [
        f"{principle.id}, (A) is response {a}, (B) is response {b}:\n{text}"
        for verdict in verdicts
        for principle, outcome in verdict.outcomes
        for text, (a, b) in zip(
            outcome.reasoning, ((verdict.left, verdict.right), (verdict.right, verdict.left)), strict=False
        )
    ]
    return "\n\n".join(parts)[:RATIONALE_LIMIT] or None
