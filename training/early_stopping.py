"""Ending a run when it gets no better on the validation split: judged by the lines of metrics.jsonl alone.

So a run that goes on after a kill comes to the same end as one that was never interrupted.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from training.recipe_base import Recipe

# What is judged by is the loss, but for methods whose loss says nothing of how good the answers are: their mean reward.
REWARDS = {"ppo": "eval_reward/mean", "grpo": "eval_reward"}


class Best(NamedTuple):
    """The best validation so far."""

    step: int
    metric: str
    value: float
    since: int


def best(lines: Sequence[Mapping[str, Any]], recipe: Recipe) -> Best | None:
    """The first of the best validations, and how many there were since; None before the first."""
    metric = REWARDS.get(recipe.method, "eval_loss")
    sign = -1 if metric == "eval_loss" else 1
    seen = [(sign * line[metric], line["step"]) for line in lines if metric in line]
    if not seen:
        return None
    # A loss that is no number is no better than another.
    place = max(range(len(seen)), key=lambda i: (seen[i][0] == seen[i][0], seen[i][0], -i))
    value, step = seen[place]
    return Best(step, metric, sign * value, len(seen) - 1 - place)


def is_over(lines: Sequence[Mapping[str, Any]], recipe: Recipe) -> bool:
    """Whether as many validations as the recipe says have brought nothing better."""
    found = best(lines, recipe) if recipe.early_stopping else None
    return found is not None and recipe.early_stopping is not None and found.since >= recipe.early_stopping
