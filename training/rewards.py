"""What PPO and GRPO maximise: a reward run's scores, or a Python function of one's own."""

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from feedback.errors import UserError
from feedback.files import hash_file
from feedback.workspace import Workspace
from training import runs
from training.runs import Run
from training.scores import load_scorer, require_scores

Reward = Callable[[Sequence[Sequence[Mapping[str, str]]], Sequence[str]], Sequence[float]]


def describe(workspace: Workspace, name: str) -> dict[str, Any]:
    """What a manifest says of a reward: the run and its weights' hashes, or the function and its file's.

    Raises:
        UserError: there is no such function, or no such run, or it is no finished reward model.
    """
    run = reward_run(workspace, name)
    if run is not None:
        return {"run_id": run.id, "weights": run.manifest["weights"]}
    module = _find(workspace, name).__module__
    file = getattr(sys.modules[module], "__file__", None)
    return {"function": name, "hash": hash_file(Path(file)) if file else None}


def reward_run(workspace: Workspace, name: str) -> Run | None:
    """The finished reward run of that id; None where the name is a function's.

    Raises:
        UserError: no such run, or it is no finished reward model.
    """
    if ":" in name:
        return None
    run = runs.find(workspace, name)
    require_scores(run)
    return run


def load_reward(workspace: Workspace, name: str) -> Reward:
    """The reward that a recipe names, called with prompts (lists of messages) and answers, one score for each.

    Args:
        name: id of a reward run, or `module:function` of a module that Python finds, or that lies in the workspace.

    Raises:
        UserError: there is neither such a run nor such a function.
    """
    run = reward_run(workspace, name)
    return _function(workspace, name) if run is None else load_scorer(run)


def _find(workspace: Workspace, name: str) -> Reward:
    module, _, function = name.partition(":")
    place = str(workspace.root)
    if place not in sys.path:
        # At the end, so that no file of the workspace is taken for a library.
        sys.path.append(place)
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ImportError as error:
        raise UserError(f"reward: {name!r}: {error}; put {module.replace('.', '/')}.py into {workspace.root}") from None
    if not callable(found):
        raise UserError(f"reward: {name!r}: {module} has no function {function!r}")
    return found


def _function(workspace: Workspace, name: str) -> Reward:
    found = _find(workspace, name)

    def reward(prompts: Sequence[Sequence[Mapping[str, str]]], answers: Sequence[str]) -> list[float]:
        scores = [float(score) for score in found(prompts, answers)]
        if len(scores) != len(answers):
            raise UserError(f"reward: {name!r}: gave {len(scores)} scores for {len(answers)} answers; one for each")
        for score, answer in zip(scores, answers, strict=True):
            if not math.isfinite(score):
                raise UserError(f"reward: {name!r}: gave {score} for the answer {answer[:60]!r}")
        return scores

    return reward
