"""What PPO and GRPO maximise: a reward run's scores, or a Python function of one's own."""

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence

from feedback.errors import UserError
from feedback.workspace import Workspace
from training import runs
from training.scores import load_scorer

Reward = Callable[[Sequence[Sequence[Mapping[str, str]]], Sequence[str]], Sequence[float]]


def load_reward(workspace: Workspace, name: str) -> Reward:
    """The reward that a recipe names, called with prompts (lists of messages) and answers, one score for each.

    Args:
        name: id of a reward run, or `module:function` of a module that Python finds, or that lies in the workspace.

    Raises:
        UserError: there is neither such a run nor such a function.
    """
    module, colon, function = name.partition(":")
    return _function(workspace, name, module, function) if colon else load_scorer(runs.find(workspace, name))


def _function(workspace: Workspace, name: str, module: str, function: str) -> Reward:
    place = str(workspace.root)
    if place not in sys.path:
        # At the end, so that no file of the workspace is taken for a library.
        sys.path.append(place)
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ImportError as error:
        raise UserError(f"reward: {name!r}: {error}; put {module}.py into {workspace.root}") from None
    if not callable(found):
        raise UserError(f"reward: {name!r}: {module} has no function {function!r}")

    def reward(prompts: Sequence[Sequence[Mapping[str, str]]], answers: Sequence[str]) -> list[float]:
        scores = [float(score) for score in found(prompts, answers)]
        if len(scores) != len(answers):
            raise UserError(f"reward: {name!r}: gave {len(scores)} scores for {len(answers)} answers; one for each")
        for score, answer in zip(scores, answers, strict=True):
            if not math.isfinite(score):
                raise UserError(f"reward: {name!r}: gave {score} for the answer {answer[:60]!r}")
        return scores

    return reward
