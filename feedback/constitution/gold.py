"""`feedback judge --evaluate`: how often a judge is right, on pairs of which people said which answer is better."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from pydantic import ValidationError

from feedback.constitution.comparison import Judging, Tally
from feedback.constitution.generators import TextGenerator
from feedback.constitution.judge import Choosing, PairVerdict, answered, plan_of, preference
from feedback.constitution.principles import Constitution
from feedback.curation.intervals import wilson
from feedback.errors import UserError
from feedback.formats import IMPORTS
from feedback.formats.fields import Origin, Refused
from feedback.formats.importing import reason_of
from feedback.formats.rows import read_rows
from feedback.schema import TIE, Candidate

ALL = "all"
REASONS_SHOWN = 5
Label = int | Literal["tie", "conflict"]


@dataclass(frozen=True)
class Share:
    """A share of n with Wilson's interval of 95%."""

    share: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Quality:
    """A judge against people, on the pairs of which people prefer one answer.

    Args:
        slice: which pairs: all, or one `subset` of the file.
        accuracy: both orders averaged; an undecided judge is not right.
        as_given, swapped: of one order alone: the file's, and the other one.
        flips: how often the place decided.
        longer: how often people prefer the longer answer, of the pairs with answers of unequal length.
        ties: pairs on which the judge is undecided.
        unanswered: pairs without a usable answer; they count in none of the shares but `longer`.
    """

    slice: str
    accuracy: Share | None
    as_given: Share | None
    swapped: Share | None
    flips: Share | None
    longer: Share | None
    ties: int
    unanswered: int


@dataclass
class Gold:
    """Pairs with what people say of them: the better answer's index, a tie, or a conflict without a majority."""

    pairs: list[tuple[Candidate, Label]]
    refused: int = 0
    reasons: list[str] = field(default_factory=list)

    def sample(self, limit: int | None) -> "Gold":
        """So many pairs of them, by their hash: the same ones each time, and in no order of the file."""
        by_hash = sorted(self.pairs, key=lambda pair: pair[0].id)
        return Gold(by_hash[:limit], self.refused, self.reasons)


@dataclass(frozen=True)
class Evaluation:
    """What `judge --evaluate` found; `ties` and `conflicts` are people's, and nothing was asked about them."""

    model: str
    constitution: str
    ties: int
    conflicts: int
    refused: int
    qualities: tuple[Quality, ...]
    tally: Tally


def share(count: int, n: int) -> Share | None:
    """So many of n; None of none."""
    return Share(count / n, *wilson(count, n), n) if n else None


def read_gold(source: str) -> Gold:
    """The pairs of `FORMAT:FILE`; rows that can't be read, or compare more than two answers, are counted.

    Raises:
        UserError: no such format or file, or no pair in it.
    """
    form, _, file = source.partition(":")
    if form not in IMPORTS or not file:
        raise UserError(
            f"--evaluate {source}: write FORMAT:FILE, e.g. llmbar:pairs.jsonl; formats: {', '.join(IMPORTS)}"
        )
    origin = Origin(form, "human", "gold", datetime.now(UTC))
    candidates: dict[str, Candidate] = {}
    votes: dict[str, list[object]] = {}
    gold = Gold([])
    for row in read_rows(file):
        try:
            if row.value is None:
                raise Refused(row.reason)
            records = IMPORTS[form](row.value, origin)
            if not records.judgements or len(records.candidates[0].responses) != 2:
                raise Refused("not a judged pair of answers")
        except (Refused, ValidationError) as refusal:
            gold.refused += 1
            gold.reasons += [f"{row.unit} {row.number}: {reason_of(refusal)}"] if gold.refused <= REASONS_SHOWN else []
            continue
        candidate = records.candidates[0]
        candidates[candidate.id] = candidate
        said = [j.ranking[0][0] if j.ranking and len(j.ranking) == 2 else j.preferred for j in records.judgements]
        votes.setdefault(candidate.id, []).extend(said)
    if not candidates:
        raise UserError(f"--evaluate {source}: no judged pair of answers in it ({'; '.join(gold.reasons)})")
    gold.pairs = [(candidate, _majority(votes[id_])) for id_, candidate in candidates.items()]
    return gold


def evaluate(
    generator: TextGenerator,
    constitution: Constitution,
    gold: Gold,
    choosing: Choosing,
    judging: Judging,
    say: Callable[[str], None],
) -> Evaluation:
    """Judge the pairs on which people are of one mind, and count how often the judge is of the same.

    Raises:
        UserError: no such principle, or the model can't be asked.
    """
    decided = [(candidate, label) for candidate, label in gold.pairs if isinstance(label, int)]
    plans = [plan_of(constitution, candidate, choosing, judging) for candidate, _ in decided]
    if outside := sum(not plan.comparisons for plan in plans):
        raise UserError(
            f"--principle {choosing.principle}: it does not apply to {outside:,} of {len(plans):,} pairs, whose "
            "answers were given no text to answer from; choose another"
        )
    tally = Tally()
    verdicts = answered(generator, plans, judging, tally, say)
    judged = [
        (candidate, label, verdict[0] if verdict else None)
        for (candidate, label), verdict in zip(decided, verdicts, strict=True)
    ]
    subsets = sorted({subset for candidate, *_ in judged if (subset := _subset(candidate))})
    qualities = [_quality(ALL, judged)]
    qualities += [_quality(subset, [j for j in judged if _subset(j[0]) == subset]) for subset in subsets]
    labels = Counter(label for _, label in gold.pairs if not isinstance(label, int))
    return Evaluation(
        generator.name, constitution.name, labels["tie"], labels["conflict"], gold.refused, tuple(qualities), tally
    )


def _majority(votes: Sequence[object]) -> Label:
    value, count = Counter(vote if isinstance(vote, int) else TIE for vote in votes).most_common(1)[0]
    if count * 2 <= len(votes):
        return "conflict"
    return value if isinstance(value, int) else "tie"


def _quality(name: str, judged: Sequence[tuple[Candidate, int, PairVerdict | None]]) -> Quality:
    known = [(label, verdict) for _, label, verdict in judged if verdict is not None]
    preferred = [preference(verdict)["preferred"] for _, verdict in known]
    lengths = [([len(response.text) for response in candidate.responses], label) for candidate, label, _ in judged]
    return Quality(
        name,
        accuracy=_share(said == label for said, (label, _) in zip(preferred, known, strict=True)),
        as_given=_share(_right(verdict.orders[0], label) for label, verdict in known),
        swapped=_share(_right(verdict.orders[1], label) for label, verdict in known),
        flips=_share(outcome.flipped for _, verdict in known for _, outcome in verdict.outcomes),
        longer=_share(sizes[label] > sizes[1 - label] for sizes, label in lengths if sizes[0] != sizes[1]),
        ties=preferred.count(TIE),
        unanswered=len(judged) - len(known),
    )


def _right(probability_of_first: float, label: int) -> bool:
    return probability_of_first > 0.5 if label == 0 else probability_of_first < 0.5


def _share(hits: Iterable[bool]) -> Share | None:
    listed = list(hits)
    return share(sum(listed), len(listed))


def _subset(candidate: Candidate) -> str:
    return str(candidate.metadata.get("subset") or "")
