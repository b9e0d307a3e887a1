"""The life of a run: its turn, its end before the end, and that it outlives whoever started it."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import UserError
from feedback.files import hash_folder
from feedback.lock import held
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from tests.training import processes
from tests.training.processes import at_step, in_process, until
from training import launch, queueing, runs, stopping
from training.runs import Run

LONG = "max_steps=100000"


def quiet(line: str) -> None:
    pass


@pytest.fixture
def keys(small_dataset: DatasetVersion, tiny_model: Path) -> list[str]:
    return ["dataset=sums", f"model={tiny_model}", "batch_size=4", "log_every=3", "checkpoint_every=10"]


def logged(run: Run) -> list[dict[str, Any]]:
    timeless = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    return [{key: value for key, value in line.items() if key not in timeless} for line in run.metrics()]


def test_two_runs_started_at_once_take_turns(workspace: Workspace, keys: list[str]) -> None:
    started = [in_process(processes.train, workspace.root, "sft", [*keys, "max_steps=40"]) for _ in range(2)]
    most_at_once = 0
    while any(process.is_alive() for process in started):
        states = [run.state for run in runs.list_runs(workspace)]
        most_at_once = max(most_at_once, states.count("running"))
    assert [process.exitcode for process in started] == [0, 0]
    assert [run.state for run in runs.list_runs(workspace)] == ["finished", "finished"]
    assert most_at_once == 1
    waited = [run for run in runs.list_runs(workspace) if "is queued, position 1, behind sft-" in run.log.read_text()]
    assert len(waited) == 1
    assert not list(Path(os.environ["VERITUNE_QUEUE"]).glob("[0-9]*"))


def test_a_dead_run_is_noticed_and_the_next_one_goes_on(workspace: Workspace, keys: list[str]) -> None:
    first, second, third = (Run(workspace.runs / f"sft-{number}") for number in (1, 2, 3))
    dying = in_process(processes.train, workspace.root, "sft", [*keys, LONG])
    until(lambda: at_step(first, 1), dying)
    waiting = []
    for run in (second, third):
        waiting.append(in_process(processes.train, workspace.root, "sft", [*keys, "max_steps=3"]))
        until(lambda run=run: run.waits_for, waiting[-1])
    assert (second.status()["waits_for"], third.status()["waits_for"]) == (["sft-1"], ["sft-1", "sft-2"])
    dying.kill()
    until(lambda: second.state == third.state == "finished")
    assert first.state == "interrupted"
    assert first.status()["waits_for"] == []


def test_runs_on_other_devices_do_not_wait(tmp_path: Path) -> None:
    def place(name: str, devices: list[str]) -> Any:
        (tmp_path / name).mkdir()
        return held(tmp_path / name / "lock"), json.dumps({"devices": devices})

    lock, worker = place("here", ["gpu-0"])
    with lock as file:
        print(worker, file=file, flush=True)
        with queueing.turn(tmp_path / "here" / "lock", pytest.fail):
            other, worker = place("there", ["gpu-1"])
            with other as file:
                print(worker, file=file, flush=True)
                with queueing.turn(tmp_path / "there" / "lock", pytest.fail):
                    assert queueing.in_use(["gpu-1", "gpu-2"])
                    assert not queueing.in_use(["gpu-2"])
        assert not queueing.in_use(["gpu-0"])


def test_a_stopped_run_saves_what_it_has_and_goes_on_as_if_it_had_not_been(
    workspace: Workspace, keys: list[str]
) -> None:
    keys += ["max_steps=60", "checkpoint_every=25", "validate_every=8", "lora.dropout=0.1"]
    whole = launch.train(workspace, "dpo", keys, quiet)
    run = Run(workspace.runs / "dpo-2")
    process = in_process(processes.train, workspace.root, "dpo", keys)
    until(lambda: at_step(run, 6), process)
    assert stopping.stop(run, 60) == run.state == "stopped"
    process.join()
    assert process.exitcode != 0
    assert not run.weights.exists()
    assert "stopped; `veritune train resume dpo-2` goes on from checkpoint-" in run.log.read_text()
    step = run.status()["step"]
    assert run.checkpoints()[-1].name == f"checkpoint-{step}"
    assert step < 25
    launch.resume(workspace, run.id, quiet)
    assert run.state == "finished"
    assert logged(run) == logged(whole)
    assert hash_folder(run.weights) == hash_folder(whole.weights)


def test_a_run_that_does_not_hear_is_ended_all_the_same(
    workspace: Workspace, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "AT_ONCE_SECONDS", 0.2)
    run = Run(workspace.runs / "sft-1")
    process = in_process(processes.deaf, workspace.root, "sft", [*keys, LONG])
    until(lambda: at_step(run, 12), process)
    assert stopping.stop(run, 0.2) == run.state == "stopped"
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert run.checkpoints()
    with pytest.raises(UserError, match="run sft-1: stopped, so there is nothing to stop"):
        stopping.stop(run, 1)


def test_a_queued_run_can_be_stopped(workspace: Workspace, keys: list[str]) -> None:
    first, second = (Run(workspace.runs / f"sft-{number}") for number in (1, 2))
    with held(first.folder.parent / "lock") as file:
        print(json.dumps({"devices": queueing.devices()}), file=file, flush=True)
        with queueing.turn(first.folder.parent / "lock", pytest.fail):
            process = in_process(processes.train, workspace.root, "sft", keys)
            until(lambda: first.waits_for, process)
            assert stopping.stop(first, 60) == "stopped"
    assert not second.folder.exists()


def test_a_run_in_hand_is_not_resumed_a_second_time(workspace: Workspace, keys: list[str]) -> None:
    run = launch.train(workspace, "sft", [*keys, "max_steps=1"], quiet)
    run.update(state="stopped")
    with held(run.lock), pytest.raises(UserError, match="another process has just begun to work on it"):
        launch.resume(workspace, run.id, quiet)


def test_a_detached_run_passes_its_checks_and_outlives_its_starter(
    workspace: Workspace, keys: list[str], veritune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERITUNE_WORKSPACE", str(workspace.root))
    refused = veritune("train", "sft", *keys, "lora.targets=[nothing]", "--detach")
    assert (refused.status, runs.list_runs(workspace)) == (2, [])
    assert refused.lines[0].startswith("error: lora.targets: 'nothing' matches no layer; there are ")
    started = veritune("train", "sft", *keys, LONG, "--detach", "--json")
    assert started == {"run_id": "sft-1", "state": "running"}
    run = runs.find(workspace, "sft-1")
    worker = json.loads(run.lock.read_text())["pid"]
    assert os.getsid(worker) == worker != os.getsid(0)
    assert run.manifest["preflight"]["first_step"] == "passed"
    assert run.manifest["command"].endswith("--detach --json")
    assert veritune("train", "stop", "sft-1", "--json") == {"run_id": "sft-1", "state": "stopped"}
    log = veritune("train", "logs", "sft-1", "--follow").out
    assert "run INFO step 1/100000, loss" in log
    assert "run INFO sft-1 stopped" in log
    assert veritune("train", "stop", "sft-1").lines == ["error: run sft-1: stopped, so there is nothing to stop"]


def test_a_fault_of_ours_is_a_line_on_the_screen_and_a_traceback_in_the_log(
    workspace: Workspace, keys: list[str], veritune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import trainable

    def fault(*_: Any) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(trainable, "load", fault)
    ended = veritune("--workspace", workspace.root, "train", "sft", *keys)
    assert (ended.status, len(ended.lines)) == (1, 1)
    assert ended.lines[0].startswith("failed: planted")
    (run,) = runs.list_runs(workspace)
    assert (run.state, run.status()["error"]) == ("failed", "planted")
    assert 'raise RuntimeError("planted")' in run.log.read_text()
