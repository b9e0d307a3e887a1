"""Endpoints on loopback, and no wait longer than a test needs."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from feedback.constitution import transport
from feedback.constitution.endpoint import Endpoint
from feedback.workspace import EndpointSettings


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_WAIT", 0.01)


@pytest.fixture
def endpoint(tmp_path: Path) -> Callable[..., Endpoint]:
    """The model "m" at an address; equal cache folders share what they know."""

    def make(url: str, cache: Path = tmp_path / "cache", model: str = "m", **settings: object) -> Endpoint:
        return Endpoint(model, EndpointSettings.model_validate({"url": url, **settings}), cache)

    return make


@dataclass(frozen=True)
class Served:
    """A model that `transformers serve` offers under its folder's name."""

    url: str
    model: Path


@pytest.fixture(scope="session")
def transformers_server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`transformers serve` with the tiny model, which samples where a temperature is given."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    shutil.copytree(tiny_model, folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"do_sample": True}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder.parent / "log.txt"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--device", "cpu"]
    with log.open("w") as out:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=out, stderr=out, env=os.environ
        )
    try:
        while not _healthy(port):
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
        yield Served(f"http://127.0.0.1:{port}/v1", folder)
    finally:
        server.terminate()
        server.wait()


def _healthy(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError):
        return False
