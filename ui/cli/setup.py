"""`init`, `doctor`, `demo` and `ui`: what starts a project, and what shows it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ui.cli.common import AsJson, chosen, current_workspace, print_json, print_table, say


def register(app: typer.Typer) -> None:
    for command in (init, doctor, demo, ui):
        app.command()(command)


def init(folder: Annotated[Path, typer.Argument(help="Where to make it.")] = Path("workspace")) -> None:
    """Make a workspace."""
    from feedback import workspace

    made = workspace.create(folder)
    say(f"workspace {made.root}; its settings are in {made.root / workspace.SETTINGS_FILE}")
    go_there = "" if made.root == Path.cwd() else f"cd {folder} && "
    say(f"next: {go_there}veritune feedback import FORMAT FILE")


def doctor(as_json: AsJson = False) -> None:
    """Say what is installed, what the machine has, and what will work here."""
    from ui.doctor import examine

    findings = examine()
    if as_json:
        print_json({finding.name: {"value": finding.value, "means": finding.means} for finding in findings})
    else:
        print_table(["what", "found", "which means"], [(f.name, f.value, f.means) for f in findings])


def demo(
    folder: Annotated[Path, typer.Option(help="Workspace of the demo; made anew.")] = Path("demo-workspace"),
    seed: Annotated[int, typer.Option(help="Of the world, the model and every run.")] = 0,
    serve: Annotated[bool, typer.Option(help="Leave the app and the labelling server running at the end.")] = True,
    port: Annotated[int, typer.Option(help="Port of the app.")] = 7860,
) -> None:
    """Run the whole loop on a small fictional world: label, build, train, evaluate, compare."""
    # Everything that the demo loads it made itself.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from ui.demo.story import run_demo, stop_labelling

    try:
        run_demo(folder, seed)
        if serve:
            chosen.folder = folder
            ui(port=port)
    finally:
        stop_labelling(folder)


def ui(
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback a password is generated.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
) -> None:
    """Open the app: compare base and tuned side by side, and vote."""
    from ui.app import serve

    serve(current_workspace(), host, port)
