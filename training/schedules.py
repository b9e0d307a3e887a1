"""Learning-rate schedules as factors of the peak.

The first step already moves the weights, unlike with transformers' own schedules, whose first factor is zero.
"""

import math
from collections.abc import Callable

from training.recipe_base import Recipe


def factor(recipe: Recipe, total: int) -> Callable[[int], float]:
    """The recipe's schedule for a run of so many optimiser steps, by the steps taken so far."""
    if recipe.schedule == "slanted-triangular":
        return lambda step: slanted_triangular(step, total, recipe.cut_frac, recipe.ratio)
    fall = {"linear": linear, "cosine": cosine, "constant": constant}[recipe.schedule]
    return lambda step: fall(step, total, recipe.warmup)


def linear(step: int, total: int, warmup: float) -> float:
    """Rise linearly over the warm-up, then fall linearly to zero at the end.

    Args:
        step: optimiser steps taken so far.
        total: optimiser steps of the whole run.
        warmup: share of steps in which the rate rises.
    """
    return _rise(step, total, warmup) or _left(step, total, warmup)


def cosine(step: int, total: int, warmup: float) -> float:
    """Rise linearly over the warm-up, then fall to zero along half a cosine (arXiv 1608.03983, equation 5)."""
    return _rise(step, total, warmup) or (1 - math.cos(math.pi * _left(step, total, warmup))) / 2


def constant(step: int, total: int, warmup: float) -> float:
    """Rise linearly over the warm-up, then stay."""
    return _rise(step, total, warmup) or 1.0


def slanted_triangular(step: int, total: int, cut_frac: float, ratio: float) -> float:
    """Rise linearly over a short share of the steps, then fall linearly (ULMFiT, arXiv 1801.06146, equation 3).

    Args:
        cut_frac: share of steps in which the rate rises.
        ratio: how much smaller the lowest rate is than the peak.
    """
    cut = max(1, math.floor(total * cut_frac))
    # Where total * cut_frac is no whole number the equation runs below zero at the end.
    p = step / cut if step < cut else max(0.0, 1 - (step - cut) / (cut * (1 / cut_frac - 1)))
    return (1 + p * (ratio - 1)) / ratio


def _rise(step: int, total: int, warmup: float) -> float | None:
    rising = round(total * warmup)
    return (step + 1) / (rising + 1) if step < rising else None


def _left(step: int, total: int, warmup: float) -> float:
    """The share of the steps after the warm-up that are still to come."""
    return max(0.0, (total - step) / max(1, total - round(total * warmup)))
