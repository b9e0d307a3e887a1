"""The real app on a real run, and a real browser that may talk to nobody else."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from feedback import workspace as workspaces
from feedback.curation.build import build
from feedback.database import Database
from feedback.schema import Demonstration, user_message
from feedback.workspace import Workspace

HOSTILE = '<img src=x onerror="pwned=1"><script>pwned=1</script>{{pwned}} ${pwned=1} ![](http://192.0.2.1/p.png)'
TUNED = "I do not know <b>that</b>."
# Chromium's own services, and its QUIC, stay off: every request seen is the page's.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Workspace, Path]:
    """A workspace with one finished run, whose base answers everything with markup; and that base's folder."""
    from training.launch import train

    folder = tmp_path_factory.mktemp("browser")
    base = folder / "pretender"
    shutil.copytree(tiny_model, base)
    _teach(base, HOSTILE)
    workspace = workspaces.create(folder / "workspace")
    rows = [
        Demonstration(prompt=user_message(_question(number)), completion=TUNED, provenance="test")
        for number in range(200)
    ]
    with Database(workspace.database) as database:
        database.add("lessons", demonstrations=rows)
    build(workspace, "lessons")
    overrides = ["dataset=lessons", f"model={base}", "max_steps=40", "learning_rate=1e-2", "batch_size=8"]
    train(workspace, "sft", overrides, lambda line: None)
    return workspace, base


@pytest.fixture
def address(trained: tuple[Workspace, Path]) -> Iterator[str]:
    """Where the app answers."""
    from ui.app import start

    app = start(trained[0], "127.0.0.1", _free_port(), password=None)
    try:
        yield app.local_url
    finally:
        app.close(verbose=False)


@dataclass
class Seen:
    """What a page asked for, and what it complained of."""

    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        # Playwright's own build where there is one, else the system's.
        own = Path(playwright.chromium.executable_path)
        path = str(own) if own.is_file() else shutil.which("chromium") or shutil.which("google-chrome")
        if path is None:
            pytest.skip("no browser: install Debian's chromium, or run `playwright install chromium`")
        try:
            browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        except Error as error:
            pytest.skip(f"{path} does not start here: {error.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[tuple[Any, Seen]]:
    """A fresh tab, and what it did."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    tab, seen = context.new_page(), Seen()
    tab.set_default_timeout(60_000)
    tab.on("request", lambda request: seen.requests.append(request.url))
    tab.on("pageerror", lambda error: seen.faults.append(str(error)))
    yield tab, seen
    context.close()


def _question(number: int) -> str:
    rng = random.Random(number)
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz   ") for _ in range(rng.randrange(2, 40))).strip() + "?"


def _teach(folder: Path, answer: str) -> None:
    """Train the model in this folder until it gives one answer to every question."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.batches import encode

    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(1000):
        rows = [encode(tokenizer, [{"role": "user", "content": _question(10 * step + i)}], answer) for i in range(4)]
        width = max(len(prompt) + len(said) for prompt, said in rows)
        pad = [width - len(prompt) - len(said) for prompt, said in rows]
        ids = torch.tensor([p + s + [0] * n for (p, s), n in zip(rows, pad, strict=True)])
        labels = torch.tensor([[-100] * len(p) + s + [-100] * n for (p, s), n in zip(rows, pad, strict=True)])
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.01:
            break
    assert loss < 0.05, f"the model did not learn its answer (loss {loss:.3f})"
    model.save_pretrained(folder)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
