"""Do the raters agree: Krippendorff's alpha over all, Cohen's kappa between each two, an AI judge against people."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from feedback.curation.aggregate import PairKey, Vote, mean_for_first, pairwise_votes, votes_on
from feedback.curation.intervals import Z, wilson
from feedback.schema import BOTH_BAD, TIE, Candidate, Judgement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 500
PREFERENCE = "preference"
VERDICTS = ("first", "second", TIE)
# How sure a judge was, from undecided to certain.
CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
Scale = Literal["nominal", "ordinal"]
# What each rater said of each unit: field -> unit -> rater -> value.
Said = Mapping[str, Mapping[Hashable, Mapping[str, str | float]]]


@dataclass(frozen=True)
class FieldAgreement:
    """How far all raters agree on one field.

    Args:
        units: how many were judged by two raters or more; alpha stands on these alone.
        raters: how many judged any of them.
        alpha: Krippendorff's; 1 is perfect, 0 is chance; None where there is nothing to compare, or no variation.
        low, high: 95% percentile bootstrap over the units.
    """

    field: str
    scale: Scale
    units: int
    raters: int
    alpha: float | None
    low: float | None
    high: float | None

    @property
    def reading(self) -> str:
        """Krippendorff's own reading (Content Analysis, 2004, section 11.4.2)."""
        if self.alpha is None:
            return "no variation" if self.units else "nothing to compare"
        return "reliable" if self.alpha >= 0.8 else "tentative" if self.alpha >= 0.667 else "not reliable"


@dataclass(frozen=True)
class RaterPair:
    """How far two raters agree on the n units that both judged; kappa is None where it is not defined."""

    field: str
    first: str
    second: str
    n: int
    agreed: float
    kappa: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Confidence:
    """The pairs on which a judge was about so sure, and the share of them where people preferred the same answer."""

    low: float
    high: float
    n: int
    stated: float
    right: float
    right_interval: tuple[float, float]


@dataclass(frozen=True)
class JudgeAgainstPeople:
    """What an AI judge and people said of the same pairs; of several votes of one side the mean counts.

    Args:
        cells: pairs by what people and what the judge said: first, second or tie, `first` sorting before `second`.
        agreed: the share of the n pairs on which both said the same, with Wilson's interval.
        kappa: Cohen's, with its asymptotic interval; None where it is not defined.
        calibration: of the pairs on which both preferred an answer, by how sure the judge was.
        decided: how many those are, and `brier` the mean squared error of the judge's probability on them.
    """

    judge: str
    n: int
    cells: tuple[tuple[int, ...], ...]
    agreed: float
    agreed_interval: tuple[float, float]
    kappa: float | None
    kappa_interval: tuple[float, float] | None
    decided: int
    brier: float | None
    brier_interval: tuple[float, float] | None
    calibration: tuple[Confidence, ...]


class AgainstPeople:
    """Compares each AI judge with people, pair by pair; scripts that stand in for people count as people."""

    def __init__(self) -> None:
        self._cells: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        # Of the pairs on which a judge was so sure: how many, the sum of its probabilities, how many were right.
        self._sure: dict[str, list[list[float]]] = defaultdict(lambda: [[0, 0.0, 0] for _ in CONFIDENCES[1:]])
        self._errors: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, votes: Sequence[Vote]) -> None:
        """Take down one pair, if both sides voted on it."""
        people = [vote for vote in votes if vote.kind != "ai"]
        if not people:
            return
        truth = mean_for_first(people)
        for judge in {vote.rater for vote in votes if vote.kind == "ai"}:
            stated = mean_for_first([vote for vote in votes if vote.rater == judge])
            self._cells[judge][_verdict(truth), _verdict(stated)] += 1
            if truth == 0.5 or stated == 0.5:
                continue
            sure, right = max(stated, 1 - stated), (stated > 0.5) == (truth > 0.5)
            place = sum(sure >= edge for edge in CONFIDENCES[1:-1])
            for index, value in enumerate((1, sure, right)):
                self._sure[judge][place][index] += value
            for index, power in enumerate((2, 4)):
                self._errors[judge][index] += (sure - right) ** power

    def result(self) -> list[JudgeAgainstPeople]:
        """What the pairs so far say of each judge."""
        return [self._of(judge) for judge in sorted(self._cells)]

    def _of(self, judge: str) -> JudgeAgainstPeople:
        import numpy as np

        cells = self._cells[judge]
        table = np.array([[cells[people, said] for said in VERDICTS] for people in VERDICTS])
        n, same = int(table.sum()), int(np.trace(table))
        kappa, low, high = _kappa(table)
        sure = self._sure[judge]
        decided = int(sum(count for count, _, _ in sure))
        brier = brier_interval = None
        if decided:
            squares, fourths = self._errors[judge]
            brier = squares / decided
            error = Z * max(0.0, fourths / decided - brier**2) ** 0.5 / decided**0.5
            brier_interval = (brier - error, brier + error)
        calibration = tuple(
            Confidence(low, high, int(count), stated / count, right / count, wilson(int(right), int(count)))
            for low, high, (count, stated, right) in zip(CONFIDENCES, CONFIDENCES[1:], sure, strict=False)
            if count
        )
        return JudgeAgainstPeople(
            judge,
            n,
            tuple(tuple(row) for row in table.tolist()),
            same / n,
            wilson(same, n),
            kappa,
            None if low is None or high is None else (low, high),
            decided,
            brier,
            brier_interval,
            calibration,
        )


def judges_against_people(candidates: Iterable[Candidate], judgements: Iterable[Judgement]) -> list[JudgeAgainstPeople]:
    """Each AI judge of a collection against the people there."""
    by_id = {candidate.id: candidate for candidate in candidates}
    votes: dict[PairKey, list[Vote]] = defaultdict(list)
    for judgement in judgements:
        for key, vote in votes_on(by_id[judgement.candidate_id], judgement):
            votes[key].append(vote)
    compared = AgainstPeople()
    for of_pair in votes.values():
        compared.add(of_pair)
    return compared.result()


def said_of_pair(votes: Sequence[Vote]) -> dict[str, str]:
    """What each rater said of a pair, for `fields_of` and `pairs_of`; of several votes of one rater the mean counts."""
    by_rater: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_rater[vote.rater].append(vote)
    return {
        rater: BOTH_BAD if all(vote.both_bad for vote in theirs) else _verdict(mean_for_first(theirs))
        for rater, theirs in by_rater.items()
    }


def _verdict(for_first: float) -> str:
    return TIE if for_first == 0.5 else "first" if for_first > 0.5 else "second"


def said_by_raters(candidates: Iterable[Candidate], judgements: Iterable[Judgement]) -> Said:
    """What each rater said, by field and unit; a rater's latest word on a unit counts.

    A unit of `preference` is a pair of a candidate's answers (a ranking states all its pairs), one of a rating or of a
    span's label is an answer. An answer without a mark counts as one where the rater saw none, in collections where
    marks are used at all.
    """
    by_id = {candidate.id: candidate for candidate in candidates}
    said: dict[str, dict[Hashable, dict[str, str | float]]] = defaultdict(lambda: defaultdict(dict))
    ordered = sorted(judgements, key=lambda judgement: judgement.created_at)
    labels = {span.label for judgement in ordered for span in judgement.spans}
    for judgement in ordered:
        candidate = by_id[judgement.candidate_id]
        rater = f"{judgement.rater.name} ({judgement.rater.kind})"
        for pair, value in _preferences(candidate, judgement):
            said[PREFERENCE][(candidate.id, *pair)][rater] = value
        for key, rating in judgement.ratings.items():
            name, _, index = key.partition("[")
            said[name][(candidate.id, index)][rater] = rating
        for label in labels:
            for answer in range(len(candidate.responses)):
                marked = any(span.label == label and span.response == answer for span in judgement.spans)
                said[label][(candidate.id, answer)][rater] = "marked" if marked else "not marked"
    return said


def _preferences(candidate: Candidate, judgement: Judgement) -> Iterator[tuple[tuple[int, int], str]]:
    undecided = BOTH_BAD if judgement.preferred == BOTH_BAD else TIE
    for better, other, probability in pairwise_votes(candidate, judgement):
        pair = min(better, other), max(better, other)
        yield pair, undecided if probability == 0.5 else "first" if better < other else "second"


def of_people(said: Said) -> Said:
    """The same without the AI judges: a bad one would pass for people who do not agree."""
    return {
        field: {unit: {r: v for r, v in words.items() if not r.endswith("(ai)")} for unit, words in units.items()}
        for field, units in said.items()
    }


def fields_of(said: Said, seed: int = 0) -> list[FieldAgreement]:
    """Krippendorff's alpha of every field (Computing Krippendorff's Alpha-Reliability, 2011), with an interval."""
    import numpy as np

    found = []
    for field, units in sorted(said.items(), key=lambda item: (item[0] != PREFERENCE, item[0])):
        shared = [ratings for ratings in units.values() if len(ratings) > 1]
        domain = sorted({value for ratings in shared for value in ratings.values()})
        scale = _scale(domain)
        counts = np.zeros((len(shared), len(domain)), dtype=np.int64)
        for row, ratings in enumerate(shared):
            for value, count in Counter(ratings.values()).items():
                counts[row, domain.index(value)] = count
        alpha = _alpha(counts, domain, scale)
        low, high = _interval(counts, domain, scale, seed) if alpha is not None else (None, None)
        raters = len({rater for ratings in shared for rater in ratings})
        found.append(FieldAgreement(field, scale, len(shared), raters, alpha, low, high))
    return found


def pairs_of(said: Said) -> list[RaterPair]:
    """Cohen's kappa (1960) of every two raters with a unit in common, with its asymptotic 95% interval."""
    import numpy as np

    found = []
    for field, units in sorted(said.items(), key=lambda item: (item[0] != PREFERENCE, item[0])):
        tables: dict[tuple[str, str], Counter[tuple[str | float, str | float]]] = defaultdict(Counter)
        for ratings in units.values():
            for first, second in combinations(sorted(ratings), 2):
                tables[first, second][ratings[first], ratings[second]] += 1
        for (first, second), cells in sorted(tables.items()):
            values = sorted({value for cell in cells for value in cell}, key=str)
            table = np.array([[cells[a, b] for b in values] for a in values])
            n, agreed = int(table.sum()), float(np.trace(table) / table.sum())
            found.append(RaterPair(field, first, second, n, agreed, *_kappa(table)))
    return found


def _kappa(table: "NDArray[np.int64]") -> tuple[float | None, float | None, float | None]:
    """Cohen's kappa and its interval."""
    import numpy as np
    from statsmodels.stats.inter_rater import cohens_kappa

    if float(table.sum(0) @ table.sum(1)) == float(table.sum()) ** 2:
        return None, None, None
    # The asymptotic variance of very small tables can come out below zero; they get no interval.
    with np.errstate(invalid="ignore"):
        kappa = cohens_kappa(table)
    known = kappa.std_kappa > 0
    low = max(-1.0, float(kappa.kappa_low)) if known else None
    high = min(1.0, float(kappa.kappa_upp)) if known else None
    return float(kappa.kappa), low, high


def _scale(domain: Sequence[str | float]) -> Scale:
    return "nominal" if any(isinstance(value, str) for value in domain) else "ordinal"


def _alpha(counts: "NDArray[np.int64]", domain: Sequence[str | float], scale: Scale) -> float | None:
    import krippendorff

    used = [bool(column.any()) for column in counts.T]
    if sum(used) < 2:
        return None
    values = [value for value, seen in zip(domain, used, strict=True) if seen]
    return float(krippendorff.alpha(value_counts=counts[:, used], value_domain=values, level_of_measurement=scale))


def _interval(
    counts: "NDArray[np.int64]", domain: Sequence[str | float], scale: Scale, seed: int
) -> tuple[float | None, float | None]:
    """The 2.5th and 97.5th percentile of alpha over resampled units; a resample without variation has none."""
    import numpy as np

    rng = np.random.default_rng(seed)
    drawn = (counts[rng.integers(len(counts), size=len(counts))] for _ in range(RESAMPLES))
    alphas = [alpha for sample in drawn if (alpha := _alpha(sample, domain, scale)) is not None]
    if len(counts) < 2 or not alphas:
        return None, None
    low, high = np.percentile(alphas, [2.5, 97.5])
    return float(low), float(high)
