"""Argilla's webhooks as an alarm clock: something was completed, so it is worth while to look."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import urlsplit

from feedback.argilla.connection import Connection
from feedback.argilla.server.address import is_loopback

EVENT = "record.completed"


@contextmanager
def completions(argilla: Connection, name: str) -> Iterator[Event]:
    """An event that is set whenever a record is completed in Argilla.

    Argilla calls back to this machine's loopback address, so one that runs elsewhere is not asked to: the event is
    never set then, and whoever waits for it looks from time to time. What is posted is not read: the labels themselves
    are fetched.

    Args:
        name: of the watcher; webhooks that an earlier one of this name left behind are removed.
    """
    wake = Event()
    if not is_loopback(urlsplit(argilla.address).hostname or ""):
        yield wake
        return
    secret = f"/{secrets.token_urlsafe(16)}"
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(wake, secret)) as listener:
        Thread(target=listener.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{listener.server_port}{secret}"
        for left in argilla.call("GET", "webhooks")["items"]:
            if left["description"] == name:
                argilla.call("DELETE", f"webhooks/{left['id']}")
        webhook = argilla.call("POST", "webhooks", {"url": url, "events": [EVENT], "description": name})
        try:
            yield wake
        finally:
            listener.shutdown()
            argilla.call("DELETE", f"webhooks/{webhook['id']}")


def _handler(wake: Event, secret: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            known = secrets.compare_digest(self.path.encode(), secret.encode())
            if known:
                wake.set()
            self.send_response(204 if known else 404)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler
