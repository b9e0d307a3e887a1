"""How a run ends early: SIGTERM or Ctrl-C let it come to a step that it logs, and save there; twice, at once."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from feedback.errors import UserError
from feedback.lock import held, is_held
from training.errors import Stopped
from training.runs import Run

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# After the signal that ends a run at once: what Python does not notice within, the system ends; that takes a moment.
AT_ONCE_SECONDS, DYING_SECONDS = 15.0, 60.0


class _Asked:
    times = 0
    waits_for_a_step = False


@contextmanager
def heeded() -> Iterator[None]:
    """Raise Stopped in the main thread where a signal asks this process to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Asked.times, _Asked.waits_for_a_step = 0, False
    before = {number: signal.signal(number, _heed) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_a_step() -> None:
    """From now on only a second signal raises: who takes the steps asks `requested`, and ends where all is whole."""
    _Asked.waits_for_a_step = True


def requested() -> bool:
    """Whether this process was asked to end."""
    return _Asked.times > 0


def stop(run: Run, wait: float) -> str:
    """Make a run end wherever it is, and wait until it has.

    Args:
        wait: seconds that it has to come to a step that it logs and save a checkpoint there; then it ends at once,
            with the last whole checkpoint.

    Returns:
        Its state: stopped, or another if it came to its end before.

    Raises:
        UserError: it is not at work, or is on another machine.
    """
    import psutil

    if not run.active:
        raise UserError(f"run {run.id}: {run.state}, so there is nothing to stop")
    owner = json.loads(run.lock.read_text())
    if owner["host"] != os.uname().nodename:
        raise UserError(f"run {run.id}: runs on {owner['host']}; stop it there")
    for number, seconds in (
        (signal.SIGTERM, wait),
        (signal.SIGTERM, AT_ONCE_SECONDS),
        (signal.SIGKILL, AT_ONCE_SECONDS),
    ):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(owner["pid"])
            workers = process.children(recursive=True) if number == signal.SIGKILL else []
            for each in (process, *workers):
                each.send_signal(number)
        deadline = time.monotonic() + seconds
        while is_held(run.lock) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not is_held(run.lock):
            break
    if run.state == "interrupted":
        with held(run.lock):
            run.update(state="stopped", process=None)
    return run.state


def _heed(number: int, frame: FrameType | None) -> None:
    _Asked.times += 1
    if not _Asked.waits_for_a_step or _Asked.times > 1:
        raise Stopped
    if number == signal.SIGINT:
        # Not by print: it may be what was interrupted.
        os.write(2, b"stopping after the next logged step; press Ctrl-C again to stop at once\n")
