"""OpenAI-compatible endpoints as text generators: many requests in flight, and nothing asked twice."""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, cast
from urllib.parse import urlsplit

from feedback.argilla.progress import Progress
from feedback.constitution.cache import AnswerCache, request_key
from feedback.constitution.generators import Answer, Request
from feedback.constitution.replies import option_logprobs
from feedback.constitution.transport import KEY_VARIABLE, Refused, Transport
from feedback.errors import UserError
from feedback.workspace import SETTINGS_FILE, EndpointSettings, Workspace

URL_VARIABLE = "VERITUNE_ENDPOINT_URL"
TOP_LOGPROBS = 20


class Endpoint:
    """One model of an endpoint.

    Args:
        model: its name there.
        settings: the address, and what may be spent.
        cache: folder of the answers that were given already.

    Raises:
        UserError: no address is set, or one that is none.
    """

    def __init__(self, model: str, settings: EndpointSettings, cache: Path) -> None:
        if not settings.url:
            raise UserError(
                f"endpoint:{model}: no address is set; give url under [endpoint] in {SETTINGS_FILE}, or {URL_VARIABLE}"
            )
        parts = urlsplit(settings.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise UserError(
                f"endpoint.url: {parts.scheme or '?'}://{parts.hostname or '?'} is no address to use; write it as "
                "http://127.0.0.1:8000/v1 is, and a key apart from it as api_key"
            )
        self.name, self.settings, self.cache = model, settings, cache
        # Until it turns out otherwise.
        self.gives_logprobs = True

    def answer(self, requests: Iterable[Request], say: Callable[[str], None]) -> Iterator[tuple[int, Answer]]:
        """Answers as they come, `concurrency` requests in flight; each is in the cache before it is given.

        Raises:
            UserError: a refused key, an unknown model, an endpoint that does not answer, or a spent budget.
        """
        job = _Job(self, list(requests), say)
        # A thread of its own: Ctrl-C reaches the caller, who ends it in order, and not a request half sent.
        thread = Thread(target=asyncio.run, args=(job.run(),), name=f"endpoint {self.name}", daemon=True)
        thread.start()
        try:
            while (answered := job.answered.get()) is not None:
                yield answered
        finally:
            job.stop()
            thread.join()
        if job.transport.failure:
            raise job.transport.failure


def from_workspace(workspace: Workspace, model: str) -> Endpoint:
    """The endpoint that veritune.toml names, or the environment in its place.

    Raises:
        UserError: neither does.
    """
    environment = {"url": os.environ.get(URL_VARIABLE), "api_key": os.environ.get(KEY_VARIABLE)}
    settings = workspace.settings.endpoint.model_copy(update={k: v for k, v in environment.items() if v})
    return Endpoint(model, settings, workspace.cache)


class _Job:
    """The requests of one call, which as many workers take as may be in flight.

    `answered` is how they come back to the caller's thread, with None after the last.
    """

    def __init__(self, endpoint: Endpoint, requests: Sequence[Request], say: Callable[[str], None]) -> None:
        self.endpoint, self.say = endpoint, say
        self.requests = enumerate(requests)
        self.progress = Progress(len(requests), endpoint.name, say)
        self.identity = f"{endpoint.settings.url} {endpoint.name}"
        self.transport = Transport(endpoint.settings, say)
        self.answered: SimpleQueue[tuple[int, Answer] | None] = SimpleQueue()
        self.under_way: dict[str, asyncio.Event] = {}
        self.known = self.lost = 0
        self.started = Event()

    async def run(self) -> None:
        """Answer all of them, or as many as come before what no retry helps."""
        self.loop = asyncio.get_running_loop()
        self.main = cast("asyncio.Task[None]", asyncio.current_task())
        self.started.set()
        try:
            with AnswerCache(self.endpoint.cache) as self.cache:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(self.endpoint.settings.concurrency):
                        workers.create_task(self._work())
            self._sum_up()
        except asyncio.CancelledError:
            # By `stop`: nobody waits for the rest.
            pass
        except Exception as error:
            self.transport.fail(error)
        finally:
            await self.transport.close()
            self.answered.put(None)

    def stop(self) -> None:
        """Let go of what is in flight."""
        self.started.wait()
        with suppress(RuntimeError):
            # Which it raises when all has ended already.
            self.loop.call_soon_threadsafe(self.main.cancel)

    async def _work(self) -> None:
        try:
            for place, request in self.requests:
                answer = await self._answer(request)
                self._count(answer)
                self.answered.put((place, answer))
                # Known answers come without a wait at which `stop` could be heard.
                await asyncio.sleep(0)
                if self.transport.failure:
                    break
        except Exception as error:
            self.transport.fail(error)

    async def _answer(self, request: Request) -> Answer:
        """From the cache, or from another worker that asks the same, or from the endpoint."""
        key = request_key(self.identity, request)
        while (known := self.cache.get(key)) is None and key in self.under_way:
            await self.under_way[key].wait()
        if known is not None:
            return known
        self.under_way[key] = asyncio.Event()
        try:
            answer = await self._ask(request)
            self.cache.put([(key, answer)])
            return answer
        finally:
            self.under_way.pop(key).set()

    async def _ask(self, request: Request) -> Answer:
        if request.options and self.endpoint.gives_logprobs:
            return await self._probabilities(request)
        if request.options:
            return await self._votes(request)
        if request.n > 1:
            return await self._several(request)
        try:
            reply = await self.transport.send(self._body(request))
        except Refused as refusal:
            return Answer(error=str(refusal))
        return Answer((reply.text,), tokens=reply.tokens)

    async def _probabilities(self, request: Request) -> Answer:
        """By the most probable first tokens; by votes, now and from now on, where the endpoint won't tell them."""
        body = self._body(replace(request, max_tokens=1)) | {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        try:
            reply = await self.transport.send(body)
            if reply.first_tokens:
                return Answer((reply.text,), option_logprobs(reply.first_tokens, request.options), reply.tokens)
        except Refused:
            pass
        answer = await self._votes(request)
        # One that is refused without asking for probabilities too says nothing about them.
        if answer.error is None and self.endpoint.gives_logprobs:
            self.endpoint.gives_logprobs = False
            self.say(f"{self.endpoint.name}: the endpoint gives no log-probabilities; votes are counted instead")
        return answer

    async def _votes(self, request: Request) -> Answer:
        return await self._several(replace(request, options=(), temperature=1.0))

    async def _several(self, request: Request) -> Answer:
        """Texts one by one: not every endpoint takes `n`, and so each is kept as it comes."""
        texts: tuple[str, ...] = ()
        tokens = 0
        for i in range(request.n):
            answer = await self._answer(replace(request, n=1, seed=request.seed + i))
            if answer.error:
                return answer
            texts += answer.texts
            tokens += answer.tokens
        return Answer(texts, tokens=tokens)

    def _body(self, request: Request) -> dict[str, Any]:
        return {
            "model": self.endpoint.name,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }

    def _count(self, answer: Answer) -> None:
        self.known += answer.cached
        self.lost += answer.error is not None
        if answer.cached:
            self.progress.total -= 1
        else:
            self.progress.step(1)

    def _sum_up(self) -> None:
        sent = self.transport
        if sent.sent:
            self.say(
                f"{self.endpoint.name}: {self.progress.done - self.lost:,} answers got, {self.lost:,} not to be had, "
                f"{self.known:,} known before; {sent.sent:,} requests, {sent.retried:,} of them repeated, "
                f"{sent.tokens:,} tokens"
            )
