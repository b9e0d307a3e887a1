"""`veritune watch` as it is started: labels that people submit in Argilla become a report, and Argilla wakes it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.results import list_results
from feedback.argilla.connection import connect
from feedback.argilla.push import push
from feedback.argilla.wakeup import completions
from feedback.workspace import Workspace
from tests.feedback.argilla.people import beside, candidate, records, sign_in, store

ROOT = Path(__file__).parents[2]


def test_a_completed_record_wakes_who_waits_and_leaves_no_webhook_behind(
    labelling_server: Workspace, workspace: Workspace
) -> None:
    workspace = beside(labelling_server, workspace)
    collection = store(workspace, candidate(1))
    push(workspace, collection, print)
    ann = sign_in(workspace, "ann")
    ((_, record),) = records(workspace, collection).items()
    with connect(workspace) as argilla:
        argilla.call(
            "POST", "webhooks", {"url": "http://127.0.0.1:9/left", "events": ["record.completed"], "description": "me"}
        )
        with completions(argilla, "me") as wake:
            assert [hook["url"].endswith("/left") for hook in _webhooks(argilla)] == [False]
            ann.answer(record, status="draft", preference="A")
            assert not wake.wait(1)
            ann.answer(record, preference="A")
            assert wake.wait(30)
        assert _webhooks(argilla) == []


def test_watch_trains_on_what_was_labelled_and_ends_on_request(
    labelling_server: Workspace, workspace: Workspace, tiny_model: Path
) -> None:
    workspace = beside(labelling_server, workspace)
    collection = store(workspace, *(candidate(number) for number in range(30)))
    push(workspace, collection, print)
    ann = sign_in(workspace, "ann")
    command = ["watch", collection, "--every", "25", "--recipe", "dpo", f"model={tiny_model}", "max_steps=1"]
    with subprocess.Popen(
        [sys.executable, "-m", "ui", "--workspace", str(workspace.root), *command],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as watch:
        try:
            said = _until(watch, lambda line: "0 of 25 labels" in line)
            for record in records(workspace, collection).values():
                ann.answer(record, preference="A")
            said += _until(watch, lambda line: "eval-1; see" in line)
            watch.send_signal(signal.SIGINT)
            assert watch.wait(30) == 130
        finally:
            watch.kill()
    (report,) = list_results(workspace.reports)
    assert report.tuned == "dpo-1"
    state = json.loads((workspace.root / "watch" / f"{collection}.json").read_text())
    assert [(batch["run"], batch["report"], batch["error"]) for batch in state["batches"]] == [
        ("dpo-1", "eval-1", None)
    ]
    with connect(workspace) as argilla:
        assert _webhooks(argilla) == []


def test_a_collection_that_is_not_there_is_told_at_once(
    labelling_server: Workspace, workspace: Workspace, tiny_model: Path, veritune: Callable[..., Any]
) -> None:
    workspace = beside(labelling_server, workspace)
    options = ["--every", "5", "--recipe", "dpo", f"model={tiny_model}"]
    ended = veritune("--workspace", str(workspace.root), "watch", "nothing", *options)
    assert ended.status == 2
    assert "collection 'nothing': not here" in ended.err


def _webhooks(argilla: Any) -> list[dict[str, Any]]:
    return [hook for hook in argilla.call("GET", "webhooks")["items"] if "left" in hook["url"] or hook["description"]]


def _until(process: subprocess.Popen[str], seen: Callable[[str], bool]) -> list[str]:
    """The lines up to and with the first that is looked for."""
    assert process.stderr is not None
    lines, deadline = [], time.monotonic() + 200
    for line in process.stderr:
        lines.append(line)
        if seen(line):
            return lines
        assert time.monotonic() < deadline
    raise AssertionError(f"it ended: {lines}")
