"""The real app on a real run, and a real browser that may talk to nobody else."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from feedback import workspace as workspaces
from feedback.curation.build import build
from feedback.database import Database
from feedback.schema import Demonstration, user_message
from feedback.workspace import Workspace
from tests.feedback.argilla.serving import free_port

ROOT = Path(__file__).parents[2]
HOSTILE = '<img src=x onerror="pwned=1"><script>pwned=1</script>{{pwned}} ${pwned=1} ![](http://192.0.2.1/p.png)'
# The tiny models know these questions by heart, and no others.
QUESTIONS = ('<img src=x onerror="pwned=1">', "who are you, and why", "tab one", "tab two", "one more")
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


@dataclass(frozen=True)
class Trained:
    """A workspace with one finished run, and what its base and tuned model say to each of the questions."""

    workspace: Workspace
    base: Path
    questions: tuple[str, ...] = QUESTIONS
    hostile: str = HOSTILE
    tuned: str = TUNED


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Trained:
    from training.launch import train

    folder = tmp_path_factory.mktemp("browser")
    base = folder / "pretender"
    shutil.copytree(tiny_model, base)
    _teach(base, HOSTILE)
    workspace = workspaces.create(folder / "workspace")
    rows = [Demonstration(prompt=user_message(text), completion=TUNED, provenance="test") for text in QUESTIONS]
    with Database(workspace.database) as database:
        database.add("lessons", demonstrations=rows)
    build(workspace, "lessons", fractions=(1, 0, 0))
    overrides = ["dataset=lessons", f"model={base}", "max_steps=60", "learning_rate=1e-2"]
    train(workspace, "sft", overrides, lambda line: None)
    return Trained(workspace, base)


@dataclass
class Served:
    """A running `veritune ui`, and what it said when it answered."""

    process: subprocess.Popen[str]
    lines: list[str]

    @property
    def address(self) -> str:
        return self.lines[0].split()[1]


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., Served]]:
    """Start `veritune ui` on a workspace in a process of its own, and wait until it answers."""
    started: list[Served] = []

    def run(workspace: Workspace, host: str = "127.0.0.1", lines: int = 1) -> Served:
        command = [sys.executable, "-m", "ui", "--workspace", str(workspace.root), "ui", "--host", host]
        command += ["--port", str(free_port())]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said: list[str] = []
        served = Served(process, said)
        started.append(served)
        while len(said) < lines and (line := process.stderr.readline()):
            said.append(line.strip())
        return served

    yield run
    for served in started:
        served.process.kill()
        served.process.communicate()


@pytest.fixture(scope="session")
def address(trained: Trained, serve: Callable[..., Served]) -> str:
    """Where the app on the trained run answers."""
    return serve(trained.workspace).address


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


def _teach(folder: Path, answer: str) -> None:
    """Train the model in this folder until it gives one answer to each question."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.batches import encode

    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rows = [encode(tokenizer, [{"role": "user", "content": text}], answer) for text in QUESTIONS]
    width = max(len(prompt) + len(said) for prompt, said in rows)
    pad = [width - len(prompt) - len(said) for prompt, said in rows]
    ids = torch.tensor([p + s + [0] * n for (p, s), n in zip(rows, pad, strict=True)])
    labels = torch.tensor([[-100] * len(p) + s + [-100] * n for (p, s), n in zip(rows, pad, strict=True)])
    for _ in range(400):
        loss = model(input_ids=ids, labels=labels).loss
        if loss < 0.005:
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.005, f"the model did not learn its answer (loss {loss:.3f})"
    model.save_pretrained(folder)
