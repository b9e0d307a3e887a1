"""64 requests in flight: what `Endpoint` gets from a fast endpoint, beside bare asyncio clients on the same server."""

import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing import Process, Queue
from pathlib import Path
from typing import Any

from feedback.constitution.endpoint import Endpoint
from feedback.constitution.generators import Request
from feedback.schema import user_message
from feedback.workspace import EndpointSettings

RESULTS = Path(__file__).parent / "results" / "endpoint.json"
IN_FLIGHT, ROUNDS = 64, 3
# Milliseconds that the server takes to answer, and how many requests each client sends in a round.
LOADS = {400: 640, 200: 960, 100: 1280, 0: 1280}
PACKAGES = ("openai", "aiohttp", "httpx")
# As long as two answers to be compared, and as a short verdict with its reasons.
PROMPT, REPLY = "words to judge " * 130, "a reason for it " * 20


def serve(delay: float, addresses: "Queue[str]") -> None:
    """An endpoint that answers every request after `delay` seconds, however many there are."""
    from aiohttp import web

    message = {"role": "assistant", "content": REPLY}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 400, "completion_tokens": 60, "total_tokens": 460}
    reply = json.dumps({"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(delay)
        return web.Response(text=reply, content_type="application/json")

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        addresses.put(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        await asyncio.Event().wait()

    asyncio.run(run())


@contextmanager
def serving(delay: float) -> Iterator[str]:
    addresses: Queue[str] = Queue()
    process = Process(target=serve, args=(delay, addresses))
    process.start()
    try:
        yield addresses.get(timeout=60)
    finally:
        process.terminate()
        process.join()


async def gathered(prompts: list[str], ask: Callable[[dict[str, Any]], Any]) -> int:
    """As many tasks as requests may be in flight, each asking one after the other; how many answers they got."""
    left = iter(prompts)

    async def work() -> int:
        texts = []
        for prompt in left:
            body = {"model": "m", "messages": [{"role": "user", "content": prompt}], "max_tokens": 60}
            texts.append((await ask(body))["choices"][0]["message"]["content"])
        return len(texts)

    return sum(await asyncio.gather(*(work() for _ in range(IN_FLIGHT))))


def bare_httpx(url: str, prompts: list[str]) -> int:
    import httpx

    async def run() -> int:
        limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
        async with httpx.AsyncClient(limits=limits, timeout=300) as client:

            async def ask(body: dict[str, Any]) -> Any:
                return (await client.post(f"{url}/chat/completions", json=body)).json()

            return await gathered(prompts, ask)

    return asyncio.run(run())


def bare_aiohttp(url: str, prompts: list[str]) -> int:
    import aiohttp

    async def run() -> int:
        connections = aiohttp.TCPConnector(limit=IN_FLIGHT)
        async with aiohttp.ClientSession(connector=connections) as client:

            async def ask(body: dict[str, Any]) -> Any:
                async with client.post(f"{url}/chat/completions", json=body) as response:
                    return await response.json()

            return await gathered(prompts, ask)

    return asyncio.run(run())


def official_client(url: str, prompts: list[str]) -> int:
    import openai

    async def run() -> int:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def ask(body: dict[str, Any]) -> Any:
                return (await client.chat.completions.create(**body)).model_dump()

            return await gathered(prompts, ask)

    return asyncio.run(run())


def ours(url: str, prompts: list[str]) -> int:
    """With the cache on disk, as every command uses it."""
    with tempfile.TemporaryDirectory() as cache:
        endpoint = Endpoint("m", EndpointSettings(url=url, concurrency=IN_FLIGHT), Path(cache))
        requests = [Request(user_message(prompt), max_tokens=60) for prompt in prompts]
        return sum(len(answer.texts) for _, answer in endpoint.answer(requests, lambda line: None))


CLIENTS = {"httpx": bare_httpx, "aiohttp": bare_aiohttp, "openai": official_client, "ours": ours}


def measure(delay_ms: int, count: int) -> dict[str, Any]:
    """Requests a second of each client, round by round, on one server."""
    rates: dict[str, list[float]] = {name: [] for name in CLIENTS}
    prompts = [f"{n} {PROMPT}" for n in range(count)]
    with serving(delay_ms / 1000) as url:
        for client in CLIENTS.values():
            client(url, prompts[:IN_FLIGHT])
        for number in range(ROUNDS):
            # Each round in another order, so that no client always meets the quieter machine.
            names = list(CLIENTS)[number % len(CLIENTS) :] + list(CLIENTS)[: number % len(CLIENTS)]
            for name in names:
                began = time.perf_counter()
                got = CLIENTS[name](url, prompts)
                rates[name].append(got / (time.perf_counter() - began))
                assert got == count
    shares = {
        name: [mine / theirs for mine, theirs in zip(rates["ours"], rates[name], strict=True)]
        for name in CLIENTS
        if name != "ours"
    }
    return {"delay_ms": delay_ms, "requests": count, "rates": rates, "shares": shares}


def main() -> None:
    measured = []
    print(f"{IN_FLIGHT} in flight, {ROUNDS} rounds; requests a second, and our share of each: median (least to most)")
    for delay_ms, count in LOADS.items():
        measured.append(found := measure(delay_ms, count))
        print(f"server answers after {delay_ms} ms, n={count} requests a round")
        for name, rates in found["rates"].items():
            share = found["shares"].get(name)
            said = f"  ours is {_spread(share, '.0%')} of it" if share else ""
            print(f"  {name:<8} {_spread(rates, '5.0f')}{said}")
    kept = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in PACKAGES},
        "in_flight": IN_FLIGHT,
        "measured": measured,
    }
    RESULTS.write_text(json.dumps(kept, indent=2) + "\n")


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
