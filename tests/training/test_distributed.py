"""Several processes and hosts: the same losses as one, and a clear end when one of them dies."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training.distributed import Host
from training.launch import join, resume, train
from training.runs import Run

# 5 steps of 8 rows: no epoch's last batch is a part of one, which several processes would fill up.
KEYS = ["dataset=sums", "max_steps=5", "log_every=1", "checkpoint_every=2", "learning_rate=1e-3", "lora.dropout=0"]


def quiet(line: str) -> None:
    pass


def losses(run: Run) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in run.metrics() if "loss" in line]


def command(workspace: Workspace, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "ui", "--workspace", str(workspace.root), "train", *arguments]


def start(workspace: Workspace, *arguments: str, netns: str | None = None, **options: Any) -> "subprocess.Popen[str]":
    inside = ["ip", "netns", "exec", netns] if netns else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*inside, *command(workspace, *arguments)],
        cwd=Path(__file__).parents[2],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(what: Any, process: "subprocess.Popen[str]", seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("method", ["sft", "dpo", "classifier"])
def test_two_processes_give_the_losses_of_one(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, method: str
) -> None:
    lines: list[str] = []
    keys = [*KEYS, f"model={tiny_model}"]
    one = train(workspace, method, [*keys, "batch_size=8"], quiet)
    two = train(workspace, method, [*keys, "batch_size=4", "processes=2"], lines.append)
    assert [step for step, _ in losses(two)] == [1, 2, 3, 4, 5]
    for (_, loss), (_, expected) in zip(losses(two), losses(one), strict=True):
        assert loss == pytest.approx(expected, abs=1e-3)
    assert two.state == "finished"
    two.verify_weights()
    # The first process alone speaks, through the one that started it.
    assert len([line for line in lines if line.startswith("step 1/5")]) == 1


def test_a_killed_process_ends_the_run_with_a_clear_line_and_the_run_goes_on(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    keys = [*KEYS, f"model={tiny_model}", "batch_size=4", "processes=2"]
    process = start(workspace, "sft", *[key.replace("max_steps=5", "max_steps=400") for key in keys])
    run = Run(workspace.runs / "sft-1")
    wait_for(run.checkpoints, process)
    workers = [child for child in psutil.Process(process.pid).children() if "training.worker" in child.cmdline()]
    assert len(workers) == 2
    workers[1].send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "process 1 of 2 ended (signal 9)" in said
    assert f"`veritune train resume {run.id}` goes on" in said
    assert run.state == "failed"
    before = run.checkpoints()[-1]
    # Nobody writes on, and what stands is whole.
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    assert (before / "trainer_state.json").is_file()


def test_workers_end_when_their_launcher_is_killed(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    # So many steps that they are not over when it is killed; the learning rate falls with them.
    steps = [*KEYS, f"model={tiny_model}", "max_steps=40"]
    process = start(workspace, "sft", *steps, "batch_size=4", "processes=2")
    run = Run(workspace.runs / "sft-1")
    wait_for(run.checkpoints, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []
    assert run.state == "interrupted"
    resumed = resume(workspace, run.id, quiet)
    whole = train(workspace, "sft", [*steps, "batch_size=4", "processes=2"], quiet)
    for (_, loss), (_, expected) in zip(losses(resumed), losses(whole), strict=True):
        assert loss == pytest.approx(expected, abs=1e-6)


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str, str]]:
    """Two network namespaces with a wire between them, and the first one's address."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"vt{os.getpid()}{side}" for side in "ab"]
    setup = [
        *(["netns", "add", name] for name in names),
        ["link", "add", "vt-a", "netns", names[0], "type", "veth", "peer", "name", "vt-b", "netns", names[1]],
        *(
            ["-n", name, "addr", "add", f"10.77.0.{n}/24", "dev", f"vt-{side}"]
            for name, n, side in zip(names, (1, 2), "ab", strict=True)
        ),
        *(
            ["-n", name, "link", "set", device, "up"]
            for name, side in zip(names, "ab", strict=True)
            for device in ("lo", f"vt-{side}")
        ),
    ]
    try:
        for arguments in setup:
            done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
        yield names[0], names[1], "10.77.0.1:29511"
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_two_hosts_train_together_and_a_lost_one_ends_the_run_with_a_clear_line(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, two_hosts: tuple[str, str, str]
) -> None:
    first, second, address = two_hosts
    keys = [*KEYS, f"model={tiny_model}"]
    one = train(workspace, "sft", [*keys, "batch_size=8"], quiet)
    run = Run(workspace.runs / "sft-2")
    main = start(workspace, "sft", *keys, "batch_size=4", "nodes=2", "--rendezvous", address, netns=first)
    wait_for(lambda: (run.folder / "manifest.json").exists() and run.state == "running", main)
    other = start(workspace, "join", run.id, "--rendezvous", address, "--host", "1", netns=second)
    wait_for(run.checkpoints, main)
    for process in psutil.Process(other.pid).children(recursive=True):
        process.kill()
    other.kill()
    other.communicate()
    _, said = main.communicate(timeout=120)
    assert main.returncode == 1
    assert f"on another host: veritune --workspace {workspace.root} train join {run.id}" in said
    assert run.state == "failed"
    assert f"`veritune train resume {run.id}` goes on from the last whole checkpoint" in said

    main = start(workspace, "resume", run.id, "--rendezvous", address, netns=first)
    wait_for(lambda: run.state == "running", main)
    other = start(workspace, "join", run.id, "--rendezvous", address, "--host", "1", netns=second)
    assert "has done its part" in other.communicate(timeout=240)[1]
    main.communicate(timeout=60)
    assert run.state == "finished"
    for (_, loss), (_, expected) in zip(losses(run), losses(one), strict=True):
        assert loss == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("address", ["nowhere", "host:", ":29500", "host:port", "host:70000"])
def test_a_rendezvous_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="give HOST:PORT"):
        Host(1, address)


def test_a_run_that_waits_for_nobody_is_not_joined(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    run = train(workspace, "sft", [*KEYS, f"model={tiny_model}", "max_steps=1"], quiet)
    with pytest.raises(UserError, match="it does not wait for number 1"):
        join(workspace, run.id, Host(1, "127.0.0.1:29500"))
