"""Stands in for argilla_server.jobs.queues: jobs run in threads of this process, with no Redis and no worker.

What still waits when the process ends is lost. For the status of records, text_index.heal makes up for it at the next
start; webhooks are told again by nobody, so who relies on them also has to look from time to time.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Coroutine
from typing import Any

LOG = logging.getLogger("veritune.jobs")


class ThreadQueue:
    """A queue whose jobs run one after the other, in the order in which they came, in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Coroutine[Any, Any, None]], str, list[int]]]
        self._waiting = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=f"jobs-{name}", daemon=True)
        self.thread.start()

    def enqueue_call(self, function: Any, args: tuple, kwargs: dict, retry: Any, **_: Any) -> None:
        """What rq's decorator `job` calls; its other options are about Redis and workers."""
        pauses = [retry.intervals[min(i, len(retry.intervals) - 1)] for i in range(retry.max)]
        self._waiting.put((lambda: function(*args, **kwargs), function.__name__, pauses))

    def _work(self) -> None:
        while True:
            run, name, pauses = self._waiting.get()
            try:
                asyncio.run(run())
            except Exception as error:
                if not pauses:
                    LOG.warning("gave up %s: %s", name, error)
                    continue
                # The others don't wait for it.
                later = threading.Timer(pauses[0], self._waiting.put, [(run, name, pauses[1:])])
                later.daemon = True
                later.start()


class NoRedis:
    """What Argilla asks of Redis itself: whether it is there, and for a job by its number, though it tells none."""

    def ping(self) -> bool:
        return True

    def hgetall(self, _: str) -> dict:
        return {}


def runs_here() -> bool:
    """Whether the current thread runs jobs, and so has another event loop than the server."""
    return threading.current_thread() in (DEFAULT_QUEUE.thread, HIGH_QUEUE.thread)


# The names that Argilla takes from this module.
REDIS_CONNECTION = NoRedis()
DEFAULT_QUEUE = ThreadQueue("default")
HIGH_QUEUE = ThreadQueue("high")
JOB_TIMEOUT_DISABLED = -1
