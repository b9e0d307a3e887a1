"""The one run whose models are in memory, and the lock that keeps two tabs from switching its adapters at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from evaluation.harness import Side
from evaluation.sides import load_sides
from training.runs import Run


class Backbone:
    """Loads a run's base and what it trained when they are first asked for, and gives up the run before."""

    def __init__(self) -> None:
        # Not an RLock: Gradio may go on with a generator in another thread than began it.
        self._lock = Lock()
        self._loaded: tuple[str, tuple[Side, Side]] | None = None

    @contextmanager
    def hold(self, run: Run) -> Iterator[tuple[Side, Side]]:
        """Base and tuned, for nobody else as long as the block lasts.

        Raises:
            UserError: the run has no weights yet, its files were altered, or its base is no longer to be had.
        """
        with self._lock:
            if self._loaded is None or self._loaded[0] != run.id:
                # Before the next is loaded: two backbones may not fit into memory.
                self._loaded = None
                run.verify_weights()
                self._loaded = run.id, load_sides(run)
            yield self._loaded[1]
