"""Leaves out what argilla-server 2.8.0 does needlessly: 90% of the time of a bulk request, half that of an answer.

tests/benchmarks/labelling_server.py has the figures; before, 500 records sent at once went at 71 a second.
"""

import functools
import gc
from collections.abc import Callable
from typing import Any

from argilla_server._version import __version__
from argilla_server.bulk import records_bulk
from argilla_server.contexts import datasets, distribution
from argilla_server.contexts.webhooks import list_enabled_webhooks
from argilla_server.models import database
from argilla_server.webhooks.v1.records import notify_record_event
from argilla_server.webhooks.v1.responses import notify_response_event
from brotli_asgi import BrotliMiddleware
from sqlalchemy.ext.asyncio import AsyncSession

VERSION = "2.8.0"


def apply(application: Any) -> None:
    """Leave it out; to be called once, when all is imported and before the application answers.

    Raises:
        RuntimeError: this is another Argilla than the one that was measured and tested.
    """
    if __version__ != VERSION:
        raise RuntimeError(f"argilla-server {__version__} is not {VERSION}, for which speed.py was written")
    # Each value of each record had a validator built for it: 60% of the time.
    database.TypeAdapter = functools.cache(database.TypeAdapter)
    # An event was put together for each record, with seven queries, and then mostly told to nobody: 30%.
    records_bulk.notify_record_event_v1 = distribution.notify_record_event_v1 = _to_listeners(notify_record_event)
    datasets.notify_response_event_v1 = _to_listeners(notify_response_event)
    # Answers were compressed, at brotli's level 7, for a reader on the same machine.
    application.user_middleware = [each for each in application.user_middleware if each.cls is not BrotliMiddleware]
    # What is imported stays: the garbage collector need not go through it again and again.
    gc.collect()
    gc.freeze()


def _to_listeners(notify: Callable[..., Any]) -> Callable[..., Any]:
    async def notify_who_listens(db: AsyncSession, event: str, subject: Any) -> list[Any]:
        # A request has a session of its own, and asks once.
        if "listened_to" not in db.info:
            db.info["listened_to"] = {name for each in await list_enabled_webhooks(db) for name in each.events}
        return await notify(db, event, subject) if event in db.info["listened_to"] else []

    return notify_who_listens
