"""The labelling server with 50,000 records: pushing them, the pages that raters ask for, and its memory."""

import argparse
import itertools
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil

from feedback import workspace as workspaces
from feedback.argilla.server import control

RESULTS = Path(__file__).parent / "results" / "labelling_server.json"
RECORDS, LOGGED, BATCH = 50_000, 5_000, 500
ANSWERS, TIMES = 200, 40
PORT = 6929
Figures = dict[str, float]
PENDING = [
    {"type": "terms", "scope": {"entity": "response", "property": "status"}, "values": ["pending"]},
    {"type": "terms", "scope": {"entity": "record", "property": "status"}, "values": ["pending"]},
]
LENGTH, MARGIN = ({"entity": "metadata", "metadata_property": name} for name in ("length", "margin"))


class Words:
    """Made-up words, as unevenly frequent as those of a language."""

    def __init__(self, rng: random.Random) -> None:
        syllables = [a + b for a in "bcdfghjklmnprstvw" for b in "aeiou"]
        made = ("".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in itertools.count())
        self.by_rank = list(itertools.islice(dict.fromkeys(itertools.islice(made, 40_000)), 20_000))
        self._weights = list(itertools.accumulate(1 / rank for rank in range(1, 20_001)))
        self._rng = rng

    def text(self, n: int) -> str:
        return " ".join(self._rng.choices(self.by_rank, cum_weights=self._weights, k=n))


def records(rng: random.Random, words: Words, n: int) -> Iterator[dict[str, Any]]:
    for number in range(n):
        prompt = [{"role": "user", "content": words.text(30)}]
        fields = {"prompt": prompt, "response_a": words.text(60), "response_b": words.text(60)}
        metadata = {"source": rng.choice(["web", "book"]), "length": rng.randrange(1000), "margin": rng.random()}
        yield {"external_id": f"r{number}", "fields": fields, "metadata": metadata}


def make_dataset(url: str, key: str, name: str) -> Any:
    import argilla

    client = argilla.Argilla(api_url=url, api_key=key)
    settings = argilla.Settings(
        fields=[argilla.ChatField("prompt"), argilla.TextField("response_a"), argilla.TextField("response_b")],
        questions=[
            argilla.LabelQuestion("preference", labels=["A", "B", "tie", "both bad"]),
            argilla.RatingQuestion("helpful", values=[1, 2, 3, 4, 5], required=False),
            argilla.TextQuestion("rationale", required=False),
        ],
        metadata=[
            argilla.TermsMetadataProperty("source"),
            argilla.IntegerMetadataProperty("length"),
            argilla.FloatMetadataProperty("margin"),
        ],
        distribution=argilla.TaskDistribution(min_submitted=1),
    )
    return argilla.Dataset(name=name, workspace="veritune", settings=settings, client=client).create()


def timed(what: Callable[[int], Any], times: int, server: psutil.Process) -> Figures:
    """Median and 95th percentile in milliseconds of a call, which is told its number; and what it costs the server.

    The processor's time, a mean, says something on a busy machine too, where calls wait for others.
    """
    seconds, before = [], server.cpu_times()
    for number in range(times):
        began = time.perf_counter()
        what(number)
        seconds.append(time.perf_counter() - began)
    after = server.cpu_times()
    worked = (after.user + after.system - before.user - before.system) / times
    p95 = statistics.quantiles(seconds, n=20)[-1]
    figures = {"median_ms": statistics.median(seconds), "p95_ms": p95, "server_cpu_ms": worked}
    return {name: round(1000 * value, 1) for name, value in figures.items()} | {"n": times}


def push(client: httpx.Client, dataset: Any, items: list[dict[str, Any]]) -> int:
    """Records a second, by the request that the SDK makes too."""
    began = time.perf_counter()
    for start in range(0, len(items), BATCH):
        batch = {"items": items[start : start + BATCH]}
        client.put(f"datasets/{dataset.id}/records/bulk", json=batch).raise_for_status()
    return round(len(items) / (time.perf_counter() - began))


def log(dataset: Any, items: list[dict[str, Any]]) -> int:
    """Records a second, by the SDK with its own batches."""
    rows = [{"id": each["external_id"], **each["fields"], **each["metadata"]} for each in items]
    began = time.perf_counter()
    dataset.records.log(rows)
    return round(len(rows) / (time.perf_counter() - began))


def label(client: httpx.Client, dataset: Any, server: psutil.Process) -> Figures:
    """One answer after another, as the page submits them."""
    queue = f"me/datasets/{dataset.id}/records/search?limit={ANSWERS}"
    waiting = client.post(queue, json={"filters": {"and": PENDING}}).json()["items"]
    values = {"preference": {"value": "A"}, "helpful": {"value": 4}}

    def answer(number: int) -> None:
        path = f"records/{waiting[number]['record']['id']}/responses"
        client.post(path, json={"values": values, "status": "submitted"}).raise_for_status()

    return timed(answer, ANSWERS, server)


def ask(client: httpx.Client, dataset: Any, words: Words, server: psutil.Process) -> dict[str, Figures]:
    """Pages of ten records as the browser asks for them."""

    def page(text: str | None = None, *filters: Any, sort: Any = None, offset: int = 0) -> Callable[[int], None]:
        body: dict[str, Any] = {
            "query": {"text": {"q": text}} if text else {},
            "filters": {"and": [*PENDING, *filters]},
        }
        if sort:
            body["sort"] = [sort]
        path = f"me/datasets/{dataset.id}/records/search?include=responses&include=suggestions&offset={offset}&limit=10"
        return lambda _: client.post(path, json=body).raise_for_status() and None

    ranks = words.by_rank
    short = {"type": "range", "scope": LENGTH, "ge": 10, "le": 200}
    paragraph = " ".join(ranks[:40])
    requests = {
        "pending queue": page(),
        "pending queue, page 2,000": page(offset=20_000),
        "text: a word of every record": page(ranks[0]),
        "text: a word of most records": page(ranks[5]),
        "text: a word of every tenth": page(ranks[100]),
        "text: a rare word": page(ranks[10_000]),
        "text: two words": page(f"{ranks[5]} {ranks[100]}"),
        "text: a phrase": page(f'"{ranks[3]} {ranks[7]}"'),
        "text: one but not another": page(f"{ranks[100]} -{ranks[5]}"),
        "text: a beginning": page(f"{ranks[200][:4]}*"),
        "text: a paragraph": page(paragraph),
        "metadata in a range": page(None, short),
        "sorted by metadata": page(sort={"scope": MARGIN, "order": "desc"}),
        "progress": lambda _: client.get(f"datasets/{dataset.id}/progress").raise_for_status() and None,
    }
    return {name: timed(request, TIMES, server) for name, request in requests.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS)
    total, before = parser.parse_args().records, os.getloadavg()[0]
    rng = random.Random(0)
    words = Words(rng)
    with tempfile.TemporaryDirectory() as temporary:
        workspace = workspaces.create(Path(temporary) / "workspace")
        try:
            server = control.start(workspace, port=PORT, say=print)
            process = psutil.Process(server.pid)
            idle = process.memory_info().rss
            url, key = str(server.url), control.credentials(workspace).api_key
            with httpx.Client(base_url=f"{url}/api/v1", headers={"X-Argilla-Api-Key": key}, timeout=300) as client:
                dataset = make_dataset(url, key, "pairs")
                pushed = push(client, dataset, list(records(rng, words, total)))
                logged = log(make_dataset(url, key, "logged"), list(records(rng, words, LOGGED)))
                requests = {"an answer": label(client, dataset, process), **ask(client, dataset, words, process)}
            memory = {"idle": idle, "in the end": process.memory_info().rss, "most": most_memory(process.pid)}
            control.stop(workspace)
            began = time.perf_counter()
            control.start(workspace, port=PORT)
            start_seconds = round(time.perf_counter() - began, 1)
        finally:
            control.stop(workspace)
    load = f"load {before:.1f} before, {os.getloadavg()[0]:.1f} after"
    kept = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{platform.machine()}, {cpu()}, {len(os.sched_getaffinity(0))} cores, {load}",
        "packages": {"argilla-server": "2.8.0", "argilla": version("argilla"), "python": platform.python_version()},
        "records": total,
        "records_per_second": {f"PUT, {BATCH} at once": pushed, "the SDK's log": logged},
        "requests": requests,
        "memory_bytes": memory,
        "start_seconds": start_seconds,
    }
    show(kept)
    RESULTS.write_text(json.dumps(kept, indent=2) + "\n")


def show(kept: dict[str, Any]) -> None:
    print(f"{kept['records']:,} records on {kept['hardware']}")
    for name, rate in kept["records_per_second"].items():
        print(f"{name:<30} {rate:>6} records/s")
    print(f"{'request':<30} {'median':>7} {'p95':>7} {'its cpu':>8} {'n':>4}   (ms)")
    for name, each in kept["requests"].items():
        times = f"{each['median_ms']:>7.0f} {each['p95_ms']:>7.0f} {each['server_cpu_ms']:>8.0f}"
        print(f"{name:<30} {times} {each['n']:>4}")
    memory = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in kept["memory_bytes"].items())
    print(f"memory of the server: {memory}; a start takes {kept['start_seconds']} s")


def most_memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
