"""A disk that fills up while a run is saved: one line, nothing whole is lost, and it goes on when there is room."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.files import hash_folder
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import launch, runs
from training.errors import TrainingError
from training.runs import Run


def quiet(line: str) -> None:
    pass


class SmallDisk:
    """A disk of its own for a workspace's runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"no disk can be mounted here ({mounted.stderr.strip()})")

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder)], check=True)

    def remove(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)


@pytest.fixture
def disk(workspace: Workspace) -> Iterator[SmallDisk]:
    disk = SmallDisk(workspace.runs)
    yield disk
    disk.remove()


def size_of(folder: Path) -> int:
    # In whole pages, as a tmpfs counts.
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def test_a_full_disk_is_one_line_and_the_checkpoint_before_is_whole(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, disk: SmallDisk
) -> None:
    keys = ["dataset=sums", f"model={tiny_model}", "max_steps=6", "checkpoint_every=2", "log_every=1"]
    whole = launch.train(workspace, "sft", keys, quiet)
    checkpoint = size_of(whole.checkpoint(6))
    before = size_of(workspace.runs)
    seen = set()
    # In checkpoints: from not even room for the lock to not enough for the third.
    for room in (0, 0.4, 1.1, 1.9, 2.3):
        disk.resize(int(before + room * checkpoint))
        with pytest.raises(TrainingError, match=r"^no room to write .* on the disk of .*sft-2 \(.* MiB are free\)"):
            launch.train(workspace, "sft", keys, quiet)
        run = Run(workspace.runs / "sft-2")
        seen.add(run.last_whole)
        disk.resize(64 * 2**20)
        if run in runs.list_runs(workspace):
            assert run.state == "failed"
            assert run.manifest["error"].endswith(f"`veritune train resume sft-2` goes on from {run.last_whole}")
            launch.resume(workspace, "sft-2", quiet)
            assert run.state == "finished"
            assert hash_folder(run.weights) == hash_folder(whole.weights)
        subprocess.run(["rm", "-r", str(run.folder)], check=True)
    assert seen == {"its beginning", "checkpoint-2", "checkpoint-4"}
