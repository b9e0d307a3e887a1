"""Runs in processes of their own, forked from one that has the heavy imports behind it; to be stopped and killed."""

import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from feedback.workspace import Workspace
from training import launch
from training.recipe import METHODS
from training.runs import Run

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["training.launch", *(f"training.{method}" for method in METHODS)])


def in_process(function: Callable[..., None], *arguments: object) -> BaseProcess:
    """Call a module's function in a new process."""
    process = _context.Process(target=_quietly, args=(function, dict(os.environ), *arguments))
    process.start()
    return process


def train(root: Path, method: str, keys: Sequence[str]) -> None:
    """A run from beginning to end, as the command line does it."""
    launch.train(Workspace(root), method, list(keys), print)


def resume(root: Path, run_id: str) -> None:
    """The rest of a run."""
    launch.resume(Workspace(root), run_id, print)


def deaf(root: Path, method: str, keys: Sequence[str]) -> None:
    """A run that no SIGTERM reaches, as when it hangs in a library."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    train(root, method, keys)


def dying(root: Path, method: str, keys: Sequence[str], pattern: str, times: int) -> None:
    """A run that is killed when its changes of files, the one it is about to make among them, end in a pattern.

    Args:
        times: how often they do before it is killed.
    """
    history, seen = "", 0

    def count(line: str) -> None:
        nonlocal history, seen
        history += line + "\n"
        seen += bool(re.search(rf"(?:{pattern})\n\Z", history, re.DOTALL))
        if seen == times:
            os.kill(os.getpid(), signal.SIGKILL)

    on_change(root, count)
    train(root, method, keys)


def on_change(root: Path, heard: Callable[[str], None]) -> None:
    """Tell of each file below a folder that this process is about to open for writing, rename or remove."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        paths = [str(path) for path in arguments[: 2 if event == "os.rename" else 1]]
        if any(str(root) in path for path in paths):
            heard(" ".join([event, *(path.replace(str(root), "") for path in paths)]))

    sys.addaudithook(hook)


def until(condition: Callable[[], object], process: BaseProcess | None = None) -> None:
    """Wait for something that a process is about to do."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process is None or process.is_alive(), "the process ended before"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def at_step(run: Run, step: int) -> bool:
    """Whether a run has logged this step."""
    return (run.folder / "manifest.json").exists() and run.status()["step"] >= step


def _quietly(function: Callable[..., None], environment: dict[str, str], *arguments: object) -> None:
    os.environ.update(environment)
    # Its own session, as a shell gives each command one; and nothing on the tests' screen.
    os.setsid()
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    function(*arguments)
