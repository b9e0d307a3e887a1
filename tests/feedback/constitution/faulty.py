"""An OpenAI-compatible endpoint that misbehaves as it is told to, and counts what it was asked."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 500: "Broken"}


@dataclass
class Reaction:
    """What the server does with one request.

    Args:
        delay: seconds before it answers.
        cut: how many bytes of the reply to send before the connection is dropped; 0 drops it at once.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int | None = None


def completion(text: str, first_tokens: dict[str, float] | None = None) -> dict[str, Any]:
    """A chat completion, with the log-probabilities of its first token where they are given."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if first_tokens is not None:
        top = [{"token": token, "logprob": logprob, "bytes": None} for token, logprob in first_tokens.items()]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    return {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": {"total_tokens": 7}}


def refusal(status: int, message: str, **fields: str) -> Reaction:
    """An error as OpenAI words it."""
    return Reaction(status, {"error": {"message": message, **fields}})


class FaultyServer:
    """Runs in a thread of its own.

    Args:
        react: from a request's body and how often its question was asked before, to what is done with it; default:
            the question comes back.
    """

    def __init__(self, react: Callable[[dict[str, Any], int], Reaction | None]) -> None:
        self.react = react
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")
        )
        body = json.loads(await reader.readexactly(length))
        question = body["messages"][-1]["content"]
        before = self.asked[question]
        self.asked[question] += 1
        self.bodies.append(body)
        self.headers.append(head)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reaction = self.react(body, before) or Reaction(body=completion(question))
            await asyncio.sleep(reaction.delay)
        finally:
            self.in_flight -= 1
        content = reaction.body if isinstance(reaction.body, bytes) else json.dumps(reaction.body).encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in reaction.headers.items())
        status = f"HTTP/1.1 {reaction.status} {REASONS.get(reaction.status, 'No')}\r\n"
        reply = f"{status}Content-Type: application/json\r\n{extra}Content-Length: {len(content)}\r\n\r\n".encode()
        if reaction.cut is not None:
            writer.write((reply + content)[: reaction.cut])
            await writer.drain()
            return False
        writer.write(reply + content)
        await writer.drain()
        self.answered[question] += reaction.status == 200
        return True


@contextmanager
def serving(
    react: Callable[[dict[str, Any], int], Reaction | None] = lambda body, before: None,
) -> Iterator[FaultyServer]:
    """The server on a port of its own, until the block ends."""
    server = FaultyServer(react)
    started = threading.Event()
    ended: list[Callable[[], object]] = []

    async def run() -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        ended.append(lambda: loop.call_soon_threadsafe(over.set))
        listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        started.set()
        await over.wait()
        listening.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="faulty server")
    thread.start()
    started.wait()
    try:
        yield server
    finally:
        ended[0]()
        thread.join()
