"""What people's votes say of models: a win rate of each against the base, and one scale for all of them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from evaluation.statistics import wilson
from feedback.database import Database
from feedback.schema import BOTH_BAD, TIE, Record
from feedback.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

# Wins of the first of two models over the second; a tie is half a win of each.
Wins = Mapping[tuple[str, str], float]
# What the first answer wins by each verdict on two.
SHARES: Mapping[int | str | None, float] = {0: 1.0, 1: 0.0, TIE: 0.5, BOTH_BAD: 0.5}


class WinRate(Record):
    """A tuned model's share of the votes against the base, a tie counted half, with Wilson's 95% interval."""

    model: str
    n: int
    rate: float
    low: float
    high: float


class Strength(Record):
    """How far a model stands above the base on Bradley and Terry's scale, in log-odds of winning, with 95% interval."""

    model: str
    strength: float
    low: float
    high: float


class Votes(Record):
    """What the standing votes say of a report's models; strengths only of more than two, where they exist."""

    rates: tuple[WinRate, ...]
    strengths: tuple[Strength, ...] = ()


def of_models(workspace: Workspace, base: str, tuned: Sequence[str]) -> Votes | None:
    """The standing votes of people on these models' answers, or None where there are none.

    Votes on identical answers say nothing of either model and are left out; a vote that both are bad is a tie.
    """
    wins = _wins(workspace, {base, *tuned})
    if not wins:
        return None
    rates = []
    for model in tuned:
        won, lost = wins.get((model, base), 0.0), wins.get((base, model), 0.0)
        if n := round(won + lost):
            low, high = win_interval(won, n)
            rates.append(WinRate(model=model, n=n, rate=won / n, low=low, high=high))
    strengths = bradley_terry(wins, base) if len(tuned) > 1 else None
    return Votes(rates=tuple(rates), strengths=tuple(strengths or ()))


def win_interval(wins: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a win rate; with half a win over, the wider of the two that enclose it."""
    return wilson(math.floor(wins), n)[0], wilson(math.ceil(wins), n)[1]


def bradley_terry(wins: Wins, reference: str) -> list[Strength] | None:
    """Strengths of all models that were compared, by maximum likelihood, strongest first (Bradley & Terry 1952).

    A model of strength a wins over one of strength b with the odds exp(a - b); the reference stands at 0. Intervals are
    Wald's, from the observed information, and take votes as independent.

    Args:
        wins: of each model over each other.

    Returns:
        None where no finite strengths are the likeliest: some group of models never lost to the rest, or was never
        compared with it (Ford 1957).
    """
    import numpy as np
    from scipy.sparse.csgraph import connected_components

    models = sorted({model for pair in wins for model in pair} | {reference})
    index = {model: place for place, model in enumerate(models)}
    won = np.zeros((len(models), len(models)))
    for (winner, loser), count in wins.items():
        won[index[winner], index[loser]] += count
    if connected_components(won > 0, connection="strong")[0] > 1:
        return None
    free = [place for place, model in enumerate(models) if model != reference]
    strengths = np.zeros(len(models))
    for _ in range(100):
        gradient, information = _likelihood(won, strengths)
        step = np.linalg.solve(information[np.ix_(free, free)], gradient[free])
        strengths[free] += step
        if abs(step).max() < 1e-10:
            break
    errors = np.zeros(len(models))
    errors[free] = np.sqrt(np.diag(np.linalg.inv(_likelihood(won, strengths)[1][np.ix_(free, free)])))
    return sorted(
        (
            Strength(model=model, strength=value, low=value - 1.959964 * error, high=value + 1.959964 * error)
            for model, value, error in zip(models, strengths.tolist(), errors.tolist(), strict=True)
        ),
        key=lambda each: (-each.strength, each.model),
    )


def _likelihood(won: "np.ndarray", strengths: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
    """Gradient and information of the log-likelihood."""
    import numpy as np

    chance = 1 / (1 + np.exp(strengths[None] - strengths[:, None]))
    played = won + won.T
    weight = played * chance * (1 - chance)
    return (won - played * chance).sum(1), np.diag(weight.sum(1)) - weight


def _wins(workspace: Workspace, models: set[str]) -> dict[tuple[str, str], float]:
    """Wins among these models by the judgements of people, each counted once in whatever collections it stands."""
    votes: dict[str, tuple[str, str, float]] = {}
    with Database(workspace.database) as database:
        for _, candidate, judgement in database.judged(list(database.collections())):
            answers = candidate.responses
            if judgement.rater.kind != "human" or len(answers) != 2 or answers[0].text == answers[1].text:
                continue
            one, other = (str(answer.model) for answer in answers)
            if one != other and {one, other} <= models and judgement.preferred in SHARES:
                votes[judgement.id] = one, other, SHARES[judgement.preferred]
    wins: dict[tuple[str, str], float] = {}
    for one, other, share in votes.values():
        for pair, won in (((one, other), share), ((other, one), 1 - share)):
            wins[pair] = wins.get(pair, 0.0) + won
    return {pair: won for pair, won in wins.items() if won}
