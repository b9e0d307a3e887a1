"""A real OpenAI-compatible server on loopback."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen


@dataclass(frozen=True)
class Served:
    """A model that `transformers serve` offers under its folder's name."""

    url: str
    model: Path


@contextmanager
def transformers_serve(tiny_model: Path, folder: Path) -> Iterator[Served]:
    """`transformers serve` with a copy of the model, which samples where a temperature is given."""
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
        while not healthy(port):
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
        yield Served(f"http://127.0.0.1:{port}/v1", folder)
    finally:
        server.terminate()
        server.wait()


def healthy(port: int) -> bool:
    """Whether a server there says that it is ready."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError):
        return False
