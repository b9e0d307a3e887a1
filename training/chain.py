"""Chains: several recipes as one command, each stage a run that an earlier one may be parent of."""

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from feedback import versions
from feedback.errors import UserError
from feedback.workspace import Workspace
from training import launch, runs
from training.config import RECIPES, override, parse_recipe
from training.recipe import METHODS
from training.runs import Run

CHAINS = RECIPES / "chains"
# Keys in which a stage's name stands for its run.
REFERENCES = ("parent", "reward")
Report = Callable[[str], None]
Stages = dict[str, dict[str, Any]]


def names() -> list[str]:
    """The chains that there are."""
    return sorted(path.stem for path in CHAINS.glob("*.yaml"))


def train(workspace: Workspace, name: str, overrides: list[str], report: Report) -> Run:
    """Train all stages one after another.

    Args:
        overrides: `key=value` for every stage that has the key, `STAGE.key=value` for one.

    Returns:
        The last stage's run.

    Raises:
        UserError: mistakes in the recipes of all stages, together, before the first one trains.
        TrainingError: a stage had to be stopped.
    """
    stages = read_stages(name, overrides)
    mistakes: list[str] = []
    for stage, values in stages.items():
        try:
            recipe = parse_recipe(values, f"{name}, stage {stage}")
            # All stages train on the version that is the latest one now.
            values["dataset"] = versions.load(workspace, recipe.dataset).id
        except UserError as error:
            mistakes += error.lines
    if mistakes:
        raise UserError(*dict.fromkeys(mistakes))
    return _go_on(workspace, {"name": name, "stages": stages, "runs": {}}, report)


def resume(workspace: Workspace, run: Run, report: Report) -> Run:
    """Train the stages that follow a finished run of a chain; a run of none is given back."""
    chain = run.manifest.get("chain")
    return run if chain is None else _go_on(workspace, _with(chain, run), report)


def unfinished(run: Run) -> bool:
    """Whether a run is part of a chain that has further stages."""
    chain = run.manifest.get("chain")
    return chain is not None and list(chain["stages"])[-1] != chain["stage"]


def read_stages(name: str, overrides: list[str]) -> Stages:
    """A chain's stages with the overrides in place.

    Raises:
        UserError: an override is no `key=value`, or no stage has its key.
    """
    stages: Stages = yaml.safe_load((CHAINS / f"{name}.yaml").read_text())
    mistakes = []
    for text in overrides:
        first = text.partition("=")[0].split(".")[0]
        if first in stages:
            concerned = {first: text.partition(".")[2]}
        else:
            concerned = {s: text for s, values in stages.items() if first in METHODS[values["method"]].model_fields}
            if not concerned:
                mistakes.append(f"override {text!r}: no stage of {name} ({', '.join(stages)}) has such a key")
        for stage, of_stage in concerned.items():
            mistakes += override(stages[stage], of_stage)
    if mistakes:
        raise UserError(*dict.fromkeys(mistakes))
    return stages


def _go_on(workspace: Workspace, chain: Mapping[str, Any], report: Report) -> Run:
    last: Run | None = None
    for number, (stage, written) in enumerate(chain["stages"].items(), 1):
        if stage in chain["runs"]:
            last = runs.find(workspace, chain["runs"][stage])
            continue
        named = {key: written[key] for key in REFERENCES if key in written}
        values = written | {key: chain["runs"].get(name, name) for key, name in named.items()}
        report(f"{chain['name']}, stage {number} of {len(chain['stages'])}: {stage}")
        last = launch.train_values(
            workspace, values, f"{chain['name']}, stage {stage}", report, notes={"chain": {**chain, "stage": stage}}
        )
        chain = _with(last.manifest["chain"], last)
    assert last is not None
    return last


def _with(chain: Mapping[str, Any], run: Run) -> dict[str, Any]:
    return {**chain, "runs": {**chain["runs"], chain["stage"]: run.id}}
