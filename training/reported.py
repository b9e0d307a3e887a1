"""What a run's process reports, read from the run's log while it grows."""

import re
from collections.abc import Iterator
from pathlib import Path

REPORTED = re.compile(r"\S+ \S+ run INFO (.*)")


class Reported:
    """The lines for the person at the screen among those of a log.

    Args:
        start: bytes of the log that are old news.
    """

    def __init__(self, log: Path, start: int) -> None:
        self._log, self._read = log, start

    def new(self) -> Iterator[str]:
        """What came since the last call; a line that is still being written comes next time."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            whole, end, _ = log.read().rpartition(b"\n")
        self._read += len(whole) + len(end)
        for line in whole.decode(errors="replace").splitlines():
            if ours := REPORTED.fullmatch(line):
                yield ours[1]
