"""Locks between processes, which a process that dies lets go of."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# A glance by `is_held` is over in far less.
GLANCE_SECONDS = 1.0


@contextmanager
def only_one(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of this file; who comes second waits.

    Args:
        on_wait: called before waiting for another holder.
    """
    with open(path, "a", opener=_private) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def held(path: Path) -> Iterator[IO[str]]:
    """Hold the lock of this file, whose holder says in it what others should know; yields it, empty.

    Raises:
        BlockingIOError: another holds it.
    """
    with open(path, "a", opener=_private) as file:
        deadline = time.monotonic() + GLANCE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        file.truncate(0)
        yield file


def is_held(path: Path) -> bool:
    """Whether a process that lives holds the lock of this file."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
