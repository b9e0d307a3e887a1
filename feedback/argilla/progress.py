"""A line now and then while records go to Argilla or come from it."""

import time
from collections.abc import Callable

SECONDS_BETWEEN_LINES = 10


class Progress:
    """Says how far it is, how fast, and how long it will take.

    Args:
        total: how many there will be.
        name: of what is under way.
    """

    def __init__(self, total: int, name: str, say: Callable[[str], None]) -> None:
        self.total, self.name, self.say = total, name, say
        self.done, self.started = 0, time.monotonic()
        self.said = self.started

    def step(self, count: int) -> None:
        """Note that `count` more are done."""
        self.done += count
        now = time.monotonic()
        if now - self.said >= SECONDS_BETWEEN_LINES and self.done < self.total:
            self.said = now
            rate = self.done / (now - self.started)
            left = (self.total - self.done) / rate
            digits = 0 if rate >= 10 else 1
            self.say(f"{self.name}: {self.done:,} of {self.total:,} ({rate:,.{digits}f} a second, {left:,.0f} s to go)")
