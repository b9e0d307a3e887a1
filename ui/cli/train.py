"""`veritune train`: runs."""

import json
from typing import Annotated, Any

import typer
import typer.core

from ui.cli.common import AsJson, current_workspace, print_json, print_table, say

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, e.g. dpo-1.")]


class RecipeFirst(typer.core.TyperGroup):
    """Takes `train dpo key=value` as `train run dpo key=value`; no recipe may be named like a command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["run", *args])


app = typer.Typer(
    cls=RecipeFirst,
    no_args_is_help=True,
    help="Train by a recipe (veritune train RECIPE [KEY=VALUE]...), and look after runs.",
    subcommand_metavar="RECIPE [KEY=VALUE]... | COMMAND [ARGS]...",
)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A method (sft, reward, dpo, ...) or a recipe file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE")] = None,
    as_json: AsJson = False,
) -> None:
    """Train by a recipe; `train run` can be left out: veritune train dpo dataset=lessons learning_rate=1e-4."""
    from training.launch import train

    finished = train(current_workspace(), recipe, overrides or [], say)
    _end(finished, as_json)


@app.command()
def recipe(name: Annotated[str, typer.Argument(help="A method, e.g. dpo.")]) -> None:
    """Print a recipe with all its keys and what they mean, to be read, or kept as a file of one's own."""
    from feedback.errors import UserError
    from training.config import recipe_text
    from training.recipe import METHODS

    if name not in METHODS:
        raise UserError(f"recipe {name!r}: there are {', '.join(METHODS)}")
    print(recipe_text(name), end="")


@app.command()
def resume(run_id: RunId, as_json: AsJson = False) -> None:
    """Go on with a run that was stopped or killed, from its last whole checkpoint."""
    from training.launch import resume

    _end(resume(current_workspace(), run_id, say), as_json)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all runs."""
    from training.runs import list_runs

    rows = [run.status() for run in list_runs(current_workspace())]
    if as_json:
        print_json(rows)
    else:
        columns = ("run_id", "state", "method", "step", "total_steps", "dataset", "parent")
        print_table(columns, [[row[key] if row[key] is not None else "-" for key in columns] for row in rows])


@app.command()
def status(run_id: RunId, as_json: AsJson = False) -> None:
    """Say how far a run is, and its latest figures."""
    from training.runs import find

    found = find(current_workspace(), run_id).status()
    if as_json:
        print_json(found)
        return
    rows = [(key, found[key]) for key in ("state", "method", "step", "total_steps", "dataset", "parent", "error")]
    rows += sorted(
        (key, f"{value:.6g}" if isinstance(value, float) else value) for key, value in found["metrics"].items()
    )
    print_table(["what", "value"], [(key, value) for key, value in rows if value is not None], title=run_id)


@app.command()
def logs(run_id: RunId) -> None:
    """Print what a run logged."""
    from training.runs import find

    path = find(current_workspace(), run_id).folder / "log.txt"
    print(path.read_text(errors="replace") if path.is_file() else "", end="")


def _end(run: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"run_id": run.id, "state": run.state}))
    else:
        judges = f"feedback judge COLLECTION --model {run.id}"
        say(f"{run.id} {run.state}; next: veritune {f'eval {run.id}' if run.head == 'causal-lm' else judges}")
