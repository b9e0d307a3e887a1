"""What can be evaluated: finished runs, models and endpoints, by what the command line calls them."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from evaluation.harness import Side
from evaluation.sides import beside, load_folder, load_side, load_sides
from feedback.constitution import endpoint
from feedback.errors import UserError
from feedback.workspace import Workspace
from training import merging, models, runs
from training.runs import Run

ENDPOINT = "endpoint:"


@dataclass(frozen=True)
class Target:
    """A model that is asked, by what it was called; `run` is what trained it, where that was in this workspace."""

    origin: str
    side: Side
    run: Run | None

    @property
    def name(self) -> str:
        return self.side.name


def load_targets(
    workspace: Workspace, names: Sequence[str], against: str | None, merged: bool, report: Callable[[str], None]
) -> tuple[Side, list[Target]]:
    """The base, and the models that are compared with it; on one backbone where only adapters differ.

    Args:
        names: ids of finished runs, models by their folders or hub names, or endpoint:NAME.
        against: the same of the base; default: what the runs were trained on.
        merged: runs' merged weights in place of their base with the adapter.

    Raises:
        UserError: one is neither, can't be loaded or doesn't answer, or there is no one base.
    """
    found = {name: _run(workspace, name) for name in dict.fromkeys(names)}
    trained = [run for run in found.values() if run]
    if against is None:
        if strangers := [name for name, run in found.items() if not run]:
            raise UserError(f"{strangers[0]}: no run of this workspace; name what it is compared with by --against")
        if len({run.manifest["model"]["hash"] for run in trained}) > 1:
            on = ", ".join(f"{run.id} on {models.short_name(run.manifest['model']['name'])}" for run in trained)
            raise UserError(f"trained on different models, {on}; name the one to compare with by --against")
    base_run = _run(workspace, against) if against else None
    on_backbone: dict[str, Side] = {}
    if trained:
        first = trained[0]
        if against is None or base_run or _is_base(against, first):
            base, on_backbone[first.id] = load_sides(first, base_run)
        else:
            base, on_backbone[first.id] = load_model(workspace, against), load_side(first)
        for run in trained[1:]:
            on_backbone[run.id] = beside(on_backbone[first.id], first, run)
    else:
        base = load_side(base_run) if base_run else load_model(workspace, str(against))
    targets: list[Target] = []
    for name, of_name in found.items():
        if of_name and merged:
            side = load_folder(merging.cached(workspace, of_name, report), of_name.id)
        else:
            side = on_backbone[name] if of_name else load_model(workspace, name)
        if side.name in (target.name for target in targets):
            raise UserError(f"{name}: {side.name} is what another one is called too; evaluate it apart")
        targets.append(Target(name, side, of_name))
    return base, targets


def load_model(workspace: Workspace, name: str) -> Side:
    """A model by its folder or hub name, or one of the workspace's endpoint.

    Raises:
        UserError: there is none, or it can't be loaded.
    """
    if name.startswith(ENDPOINT):
        served = endpoint.from_workspace(workspace, name.removeprefix(ENDPOINT))
        return Side(ENDPOINT + models.short_name(served.name), served, None, nullcontext)
    tokenizer = models.load_tokenizer(name)
    model = models.load_base(name).eval()
    return Side(models.short_name(name), model, tokenizer, nullcontext, models.model_hash(name))


def _is_base(name: str, run: Run) -> bool:
    return not name.startswith(ENDPOINT) and models.model_hash(name) == run.manifest["model"]["hash"]


def _run(workspace: Workspace, name: str) -> Run | None:
    if name not in (run.id for run in runs.list_runs(workspace)):
        return None
    run = runs.find(workspace, name)
    run.verify_weights()
    return run
