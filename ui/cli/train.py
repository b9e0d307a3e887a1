"""`veritune train`: runs."""

import json
import time
from contextlib import suppress
from typing import Annotated, Any

import typer
import typer.core

from ui.cli.common import AsJson, current_workspace, print_json, print_table, say

Rendezvous = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help="With nodes > 1: where other hosts find this one; default: its name, 29500."
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="Return when the run has passed its checks, and let it go on.")]
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
    detach: Detach = False,
    rendezvous: Rendezvous = None,
    as_json: AsJson = False,
) -> None:
    """Train by a recipe; `train run` can be left out: veritune train dpo dataset=lessons learning_rate=1e-4."""
    from feedback.errors import UserError
    from training import chain, detached, launch
    from training.distributed import Host

    if recipe in chain.names():
        if detach or rendezvous:
            raise UserError(f"{recipe}: a chain of runs is trained in the foreground, on one host")
        _tell(chain.train(current_workspace(), recipe, overrides or [], say), as_json)
        return
    begin = detached.start if detach else launch.train
    _tell(begin(current_workspace(), recipe, overrides or [], say, host=Host(0, rendezvous)), as_json)


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
def resume(run_id: RunId, detach: Detach = False, rendezvous: Rendezvous = None, as_json: AsJson = False) -> None:
    """Go on with a run that was stopped or killed, from its last whole checkpoint, and with the chain it is part of."""
    from training import chain, detached, launch
    from training.distributed import Host
    from training.runs import find

    workspace = current_workspace()
    found = find(workspace, run_id)
    if not (found.state == "finished" and chain.unfinished(found)):
        begin = detached.resume if detach else launch.resume
        found = begin(workspace, run_id, say, host=Host(0, rendezvous))
    _tell(found if detach else chain.resume(workspace, found, say), as_json)


@app.command()
def join(
    run_id: RunId,
    host: Annotated[int, typer.Option(min=1, help="Number of this host, from 1.")],
    rendezvous: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the run's first host is found.")],
) -> None:
    """Train with a run that another host began; the run prints the command, and both see its workspace folder."""
    from training import launch
    from training.distributed import Host

    launch.join(current_workspace(), run_id, Host(host, rendezvous))
    say(f"{run_id}: host {host} has done its part")


@app.command()
def stop(
    run_id: RunId,
    wait: Annotated[
        float,
        typer.Option(min=0, help="Seconds to come to a step that is logged and to save there; then it ends at once."),
    ] = 120,
    as_json: AsJson = False,
) -> None:
    """End a run that is at work or queued; `train resume` goes on with it."""
    from training import stopping
    from training.runs import find

    found = find(current_workspace(), run_id)
    if found.active and not as_json:
        say(f"{run_id} ends after the next step that it logs, or in {wait:g} s")
    stopping.stop(found, wait)
    _tell(found, as_json)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all runs."""
    from training.runs import list_runs

    rows = [run.status() for run in list_runs(current_workspace())]
    if as_json:
        print_json(rows)
    else:
        columns = ("run_id", "state", "method", "step", "total_steps", "dataset", "parent")
        for row in rows:
            row["state"] += f" ({len(row['waits_for'])})" if row["waits_for"] else ""
        print_table(columns, [[row[key] if row[key] is not None else "-" for key in columns] for row in rows])


@app.command()
def status(run_id: RunId, as_json: AsJson = False) -> None:
    """Say how far a run is, and its latest figures."""
    from training.runs import find

    found = find(current_workspace(), run_id).status()
    if as_json:
        print_json(found)
        return
    found["waits_for"] = ", ".join(found["waits_for"]) or None
    rows = [
        (key, found[key])
        for key in ("state", "waits_for", "method", "step", "total_steps", "dataset", "parent", "error")
    ]
    rows += sorted(
        (key, f"{value:.6g}" if isinstance(value, float) else value) for key, value in found["metrics"].items()
    )
    rows += [("alarm", f"{line['alarm']}, step {line['step']}: {line['message']}") for line in found["alarms"]]
    print_table(["what", "value"], [(key, value) for key, value in rows if value is not None], title=run_id)


@app.command()
def logs(
    run_id: RunId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends or Ctrl-C.")] = False,
) -> None:
    """Print what a run reported and what libraries logged meanwhile."""
    from training.runs import find

    found = find(current_workspace(), run_id)
    if not found.log.is_file():
        return
    with found.log.open(errors="replace") as log, suppress(KeyboardInterrupt):
        while True:
            active = found.active
            for chunk in iter(lambda: log.read(1 << 16), ""):
                print(chunk, end="", flush=True)
            if not (follow and active):
                break
            time.sleep(0.2)


def _tell(run: Any, as_json: bool) -> None:
    state = run.state
    if as_json:
        print(json.dumps({"run_id": run.id, "state": state}))
        return
    uses = {"score": f"feedback judge COLLECTION --model {run.id}", "labels": f"train status {run.id}"}
    after = {"finished": uses.get(run.head, f"eval {run.id}"), "stopped": f"train resume {run.id}"}.get(
        state, f"train status|logs|stop {run.id}"
    )
    say(f"{run.id} {state}; next: veritune {after}")
