"""Jobs of the labelling server, which run in threads of its own process: webhooks, and the status of records."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from feedback.argilla.server import control, environment
from feedback.workspace import Workspace
from tests.feedback.argilla.serving import add_records, answer_yes, call, make_dataset

# Runs inside the server's environment.
PROGRAM = """
import json, os, threading
from types import SimpleNamespace
from embedded.jobs import DEFAULT_QUEUE, HIGH_QUEUE

order, go_on, ended = [], threading.Event(), threading.Event()
once = SimpleNamespace(max=0, intervals=[0])

async def wait(): go_on.wait(60); order.append("told")
async def let_go(): go_on.set()
async def do(number): order.append(number)
async def fail(): raise ValueError("on purpose")
async def end(): ended.set()

files, threads = len(os.listdir("/dev/fd")), threading.active_count()
HIGH_QUEUE.enqueue_call(wait, (), {}, once)
DEFAULT_QUEUE.enqueue_call(let_go, (), {}, once)
for number in range(500):
    HIGH_QUEUE.enqueue_call(fail, (), {}, once)
    HIGH_QUEUE.enqueue_call(do, (number,), {}, once)
HIGH_QUEUE.enqueue_call(end, (), {}, once)
assert ended.wait(60)
print(json.dumps([order, len(os.listdir("/dev/fd")) - files, threading.active_count() - threads]))
"""


class Receiver:
    """A program that listens to webhooks; it takes what comes, after refusing it as often as it is told to."""

    def __init__(self, workspace: Workspace) -> None:
        self.calls: Queue[tuple[dict[str, str], bytes, Any]] = Queue()
        self.refusals = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                # It asks the server in turn, while that waits for its answer.
                receiver.calls.put((dict(self.headers), body, call(workspace, "GET", "me")))
                receiver.refusals -= 1
                self.send_response(500 if receiver.refusals >= 0 else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver(labelling_server: Workspace) -> Iterator[Receiver]:
    receiver = Receiver(labelling_server)
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture
def listen(labelling_server: Workspace, receiver: Receiver) -> Iterator[Callable[..., str]]:
    """Have the server tell of these events; the secret that its messages are signed with."""
    made = []

    def register(*events: str) -> str:
        body = {"url": receiver.url, "events": list(events), "description": "test"}
        made.append(call(labelling_server, "POST", "webhooks", body))
        return str(made[-1]["secret"])

    yield register
    for webhook in made:
        call(labelling_server, "DELETE", f"webhooks/{webhook['id']}")


def test_webhooks_are_delivered_and_signed(
    labelling_server: Workspace, receiver: Receiver, listen: Callable[..., str]
) -> None:
    secret = listen("response.created")
    records = add_records(labelling_server, make_dataset(labelling_server, "told"), "one", "two")
    for record in records:
        answer_yes(labelling_server, record)
    told = []
    for _ in records:
        headers, body, me = receiver.calls.get(timeout=60)
        told.append(Webhook(secret).verify(body, {name.lower(): value for name, value in headers.items()}))
        assert me["username"] == "owner"
    assert [message["type"] for message in told] == ["response.created"] * 2
    # In the order in which they were given.
    assert [message["data"]["record"]["id"] for message in told] == records


def test_a_delivery_that_failed_is_tried_again(
    labelling_server: Workspace, receiver: Receiver, listen: Callable[..., str]
) -> None:
    dataset = make_dataset(labelling_server, "told again")
    listen("record.created")
    receiver.refusals = 1
    add_records(labelling_server, dataset, "one")
    first, second = (receiver.calls.get(timeout=60)[1] for _ in range(2))
    assert b"record.created" in first
    assert first == second


def test_another_overlap_changes_the_status_of_records(labelling_server: Workspace) -> None:
    overlap = {"strategy": "overlap", "min_submitted": 1}
    dataset = make_dataset(labelling_server, "overlap", distribution=overlap)
    (record,) = add_records(labelling_server, dataset, "one")
    answer_yes(labelling_server, record)
    assert call(labelling_server, "GET", f"records/{record}")["status"] == "completed"
    call(labelling_server, "PATCH", f"datasets/{dataset}", {"distribution": overlap | {"min_submitted": 2}})
    deadline = time.monotonic() + 60
    while call(labelling_server, "GET", f"records/{record}")["status"] != "pending":
        assert time.monotonic() < deadline


def test_jobs_wait_for_no_other_queue_and_leave_nothing_behind() -> None:
    server = Path(control.__file__).parent
    ended = subprocess.run(
        [environment.python_of_server(print), "-P", "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": str(server), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    order, files, threads = json.loads(ended.stdout)
    assert order == ["told", *range(500)]
    assert files <= 5
    assert threads <= 1
    assert "gave up fail: on purpose" in ended.stderr
