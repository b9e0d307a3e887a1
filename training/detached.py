"""Runs in a process and session of their own, which go on when the terminal, the app or the command is gone."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from feedback.errors import UserError
from feedback.workspace import Workspace
from training.distributed import ALONE, Host
from training.errors import TrainingError
from training.reported import Reported
from training.runs import Run

Report = Callable[[str], None]


def start(workspace: Workspace, recipe_name: str, overrides: Sequence[str], report: Report, host: Host = ALONE) -> Run:
    """Start a run, and return when it has passed its checks up to the first step, or has to wait for its turn.

    Raises:
        UserError: everything that is wrong with the recipe and what it names, together.
        TrainingError: the run ended before it had passed its checks.
    """
    order = {"train": recipe_name, "overrides": list(overrides), "rendezvous": host.rendezvous}
    return _start(workspace, order, report)


def resume(workspace: Workspace, run_id: str, report: Report, host: Host = ALONE) -> Run:
    """Go on with a run; returns and raises as `start` does."""
    return _start(workspace, {"resume": run_id, "rendezvous": host.rendezvous}, report)


def _start(workspace: Workspace, order: dict[str, Any], report: Report) -> Run:
    order |= {"workspace": str(workspace.root), "command": sys.argv[1:]}
    reading, writing = os.pipe()
    try:
        # No subprocess.Popen: the run is not this process's to wait for, and outlives it.
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "training.detached", json.dumps(order)],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writing, 1),
            ],
            setsid=True,
        )
    finally:
        os.close(writing)
    with open(reading) as pipe:
        said = json.loads(pipe.readline() or "{}")
    if "mistakes" in said:
        raise UserError(*said["mistakes"])
    if "run" not in said:
        _, status = os.waitpid(pid, 0)
        raise TrainingError(f"the run's process ended with {os.waitstatus_to_exitcode(status)} before there was a run")
    run = Run(Path(said["run"]))
    _follow(run, said["logged"], report)
    return run


def _follow(run: Run, logged: int, report: Report) -> None:
    """Report what the run does, until it can be left alone."""
    checked, lines = False, Reported(run.log, logged)
    while not checked:
        state, manifest = run.state, run.manifest
        waiting = state == "queued" and bool(run.waits_for)
        checked = waiting or state == "finished" or "first_step" in (manifest.get("preflight") or {})
        for line in lines.new():
            report(line)
        if not checked and state not in ("queued", "running"):
            raise TrainingError(f"{run.id} {state}: {manifest.get('error') or f'see {run.log}'}")
        time.sleep(0.05)


def main() -> None:
    """What the run's own process does; its first line of output says whether there is a run."""
    order = json.loads(sys.argv[1])
    # The run's manifest tells how it was asked for.
    sys.argv[1:] = order["command"]
    from training import launch

    workspace, begun = Workspace(Path(order["workspace"])), False

    def quiet(line: str) -> None:
        """The run's log has it."""

    def let_go(run: Run) -> None:
        nonlocal begun
        begun = True
        log = os.open(run.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        print(json.dumps({"run": str(run.folder), "logged": os.fstat(log).st_size}), flush=True)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)

    host = Host(0, order["rendezvous"])
    try:
        if "resume" in order:
            launch.resume(workspace, order["resume"], quiet, let_go, host)
        else:
            launch.train(workspace, order["train"], order["overrides"], quiet, let_go, host)
    except UserError as error:
        if not begun:
            print(json.dumps({"mistakes": error.lines}), flush=True)
        sys.exit(2)
    except BaseException:
        if not begun:
            raise
        # The run's log has the traceback.
        sys.exit(1)


if __name__ == "__main__":
    main()
