"""One run a device at a time: who comes later waits, first come first served, over all workspaces of a machine.

A run's process holds the lock of the file `lock` in the run's folder for as long as it works on it. The queue is a
folder of numbered links to such files; it is a run's turn when no lower number that wants one of its devices is held.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from feedback.errors import UserError
from feedback.lock import is_held, only_one

ENVIRONMENT_VARIABLE = "VERITUNE_QUEUE"
SECONDS_BETWEEN_LOOKS = 0.2


def devices() -> list[str]:
    """What a run computes on here: the GPUs that it may see, else the processor."""
    import torch

    if torch.cuda.is_available():
        return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]
    return ["cpu"]


@contextmanager
def turn(lock: Path, on_wait: Callable[[Sequence[Path]], None]) -> Iterator[None]:
    """Have the devices that a run's lock names for this run alone, when those that came before have ended.

    Args:
        on_wait: told the folders of the runs that it waits for, at first and whenever that changes.
    """
    queue = _folder()
    with only_one(queue / "order"):
        numbers = []
        for link in queue.glob("[0-9]*"):
            # A link of this run's earlier process would hold up its next one for ever.
            if link.readlink() == lock or not is_held(link):
                link.unlink()
            else:
                numbers.append(int(link.name))
        mine = queue / f"{max(numbers, default=0) + 1:09}"
        mine.symlink_to(lock)
    try:
        told: list[Path] = []
        while before := waits_for(lock):
            if before != told:
                on_wait(before)
                told = before
            time.sleep(SECONDS_BETWEEN_LOOKS)
        yield
    finally:
        mine.unlink(missing_ok=True)


def waits_for(lock: Path) -> list[Path]:
    """The folders of the runs that a run waits for, the one at work first."""
    line = _line()
    mine = next((place for place in line if place.lock == lock), None)
    return [place.lock.parent for place in line if mine and place.number < mine.number and place.wants & mine.wants]


def in_use(wanted: Sequence[str]) -> bool:
    """Whether a run that wants these devices would have to wait."""
    return any(place.wants & set(wanted) for place in _line())


@dataclass(frozen=True)
class _Place:
    number: int
    lock: Path
    wants: frozenset[str]


def _line() -> list[_Place]:
    """The places that are held, the first first."""
    places = []
    for link in sorted(_folder().glob("[0-9]*")):
        try:
            lock = link.readlink()
            if is_held(link):
                places.append(_Place(int(link.name), lock, frozenset(json.loads(lock.read_text())["devices"])))
        except (OSError, ValueError):
            # It was given up between two of these lines, or its run is only just beginning again.
            continue
    return places


def _folder() -> Path:
    if named := os.environ.get(ENVIRONMENT_VARIABLE):
        queue = Path(named)
        queue.mkdir(parents=True, exist_ok=True)
        return queue
    queue = Path(tempfile.gettempdir()) / f"veritune-{os.getuid()}"
    queue.mkdir(mode=0o700, exist_ok=True)
    if queue.lstat().st_uid != os.getuid():
        raise UserError(f"{queue}: belongs to somebody else; name a folder for the queue with {ENVIRONMENT_VARIABLE}")
    return queue
