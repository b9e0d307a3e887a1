"""What only an NVIDIA GPU can show; skipped elsewhere."""

import shutil
from pathlib import Path

import pytest
import torch

from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import finished, merging, models
from training.launch import resume, train

pytestmark = pytest.mark.gpu
KEYS = ["dataset=sums", "max_steps=4", "learning_rate=1e-2", "log_every=1"]


def quiet(line: str) -> None:
    pass


def test_qlora_with_paged_states_trains_and_merges(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, tmp_path: Path
) -> None:
    keys = [*KEYS, f"model={tiny_model}", "quantize=nf4", "optimizer=paged-adamw-8bit", "gradient_checkpointing=true"]
    run = train(workspace, "sft", keys, quiet)
    assert (run.manifest["optimizer"], run.manifest["replaced"]) == ("paged-adamw-8bit", [])
    losses = [line["loss"] for line in run.metrics() if "loss" in line]
    assert losses[-1] < losses[0]
    merged = merging.merge(workspace, run, tmp_path / "merged", "auto", "card", quiet)
    assert merged.agreement is not None


def test_a_run_takes_about_what_was_estimated(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, tmp_path: Path
) -> None:
    from tests.training import peak

    root, model = peak.make(tmp_path, tiny_model)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    keys = ["dataset=long", f"max_length={peak.LENGTH}", "batch_size=4", f"model={model}", "quantize=nf4"]
    keys.append("max_steps=2")
    run = train(Workspace(root), "sft", keys, quiet)
    taken = torch.cuda.max_memory_allocated() - before
    assert 0.5 < taken / run.manifest["preflight"]["memory_needed"] < 1.1


def test_ligers_kernels_give_trls_losses(workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path) -> None:
    pytest.importorskip("liger_kernel")
    keys = [*KEYS, f"model={tiny_model}", "precision=fp32"]
    losses = []
    for backend in ("trl", "liger"):
        run = train(workspace, "sft", [*keys, f"backend={backend}"], quiet)
        assert run.manifest["backend"] == backend
        losses.append([line["loss"] for line in run.metrics() if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="a model is spread over two GPUs")
@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("sharding", ["fsdp", "zero2", "zero3"])
def test_a_model_spread_over_two_gpus_learns_as_one_that_is_not(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, sharding: str, tuning: str
) -> None:
    if sharding != "fsdp":
        pytest.importorskip("deepspeed")
    keys = [*KEYS, f"model={tiny_model}", "precision=fp32", "processes=2", f"tuning={tuning}", "checkpoint_every=2"]
    whole, spread = (train(workspace, "sft", [*keys, f"sharding={each}"], quiet) for each in ("none", sharding))
    losses = [[line["loss"] for line in run.metrics() if "loss" in line] for run in (whole, spread)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    # As one killed after its first checkpoint: what it goes on to is what it was.
    shutil.rmtree(spread.checkpoint(4))
    shutil.rmtree(spread.weights)
    spread.update(state="running")
    resume(workspace, spread.id, quiet)
    assert [line["loss"] for line in spread.metrics() if "loss" in line] == pytest.approx(losses[1], abs=1e-5)
    spread.verify_weights()
    finished.load(spread)


def test_unsloths_base_trains_and_answers_as_ours(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    pytest.importorskip("unsloth")
    run = train(workspace, "sft", [*KEYS, f"model={tiny_model}", "backend=unsloth"], quiet)
    assert run.manifest["backend"] == "unsloth"
    model, _ = finished.load(run)
    base = models.load_base(str(tiny_model))
    ids = torch.arange(1, 20, device=model.device)[None]
    with torch.no_grad():
        assert not torch.equal(model(input_ids=ids).logits, base(input_ids=ids).logits)
