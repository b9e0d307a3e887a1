"""Metrics go where the recipe says besides metrics.jsonl; names and keys of trackers go nowhere."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import launch

SECRETS = {"WANDB_API_KEY": "wandb-secret-0123456789", "HF_TOKEN": "hf_secret0123456789"}


@pytest.fixture
def keys(small_dataset: DatasetVersion, tiny_model: Path) -> list[str]:
    return ["dataset=sums", f"model={tiny_model}", "max_steps=4", "log_every=2"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")
def test_tensorboard_has_the_losses_of_the_run_and_no_file_a_key(
    workspace: Workspace, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    run = launch.train(workspace, "sft", [*keys, "tracker=tensorboard"], print)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    seen = {event.step: event.value for event in events.Scalars("train/loss")}
    logged = {line["step"]: line["loss"] for line in run.metrics() if "loss" in line}
    assert seen == pytest.approx(logged, rel=1e-6)
    assert {path.name for path in (run.folder / "checkpoints").iterdir()} == {"checkpoint-4"}
    texts = [path.read_bytes() for path in run.folder.rglob("*") if path.is_file()]
    assert len(texts) > 8
    assert not any(secret.encode() in text for secret in SECRETS.values() for text in texts)


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_one_line_with_the_remedy(
    workspace: Workspace, keys: list[str], veritune: Callable[..., Any], tracker: str
) -> None:
    if find_spec(tracker):
        pytest.skip(f"{tracker} is installed here")
    ended = veritune("--workspace", workspace.root, "train", "sft", *keys, f"tracker={tracker}")
    assert ended.status == 2
    assert ended.lines == [f"error: recipe sft: tracker: {tracker} is not installed; pip install 'veritune[{tracker}]'"]
