"""The memory estimate against what runs really took, and what is said where there is too little."""

import sys
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from tests.training import peak
from training import memory, models
from training.config import load_recipe
from training.launch import train
from training.runs import list_runs


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from Linux's /proc")
def test_a_run_takes_about_what_was_estimated(tmp_path: Path, tiny_model: Path) -> None:
    keys = ("quantize=nf4", "optimizer=adamw-8bit", "lora.r=64")
    found = peak.measure(*peak.make(tmp_path, tiny_model), tiny_model, "sft", *keys)
    assert 0.7 < found["peak"] / found["estimated"] < 1.25


def test_four_bits_and_small_states_are_counted(tiny_model: Path) -> None:
    config = models.load_config(str(tiny_model))

    def needed(*keys: str) -> float:
        recipe = load_recipe("sft", ["dataset=x", "precision=bf16", "lora.targets=[q_proj]", "lora.r=4", *keys])
        return memory.estimate(recipe, config, 8, 1) / memory.RESERVED

    # q, k, v, o and the MLP of two layers: two bytes become four bits and scales, and one weight is whole at a time.
    quantised = 2 * (4 * 32 * 32 + 3 * 32 * 64)
    assert needed() - needed("quantize=nf4") == pytest.approx(
        quantised * (2 - (4 + 8 / 64 + 32 / (64 * 256)) / 8) - 32 * 64 * 2, abs=2
    )
    assert needed() - needed("optimizer=paged-adamw-8bit") == pytest.approx(6 * 2 * 4 * (32 + 32), abs=2)


def test_what_processes_share_is_counted_in_parts(tiny_model: Path) -> None:
    config = models.load_config(str(tiny_model))
    weights = sum(parameter.numel() for parameter in models.skeleton(config).parameters())

    def needed(*keys: str) -> float:
        recipe = load_recipe("sft", ["dataset=x", "precision=fp32", "tuning=full", "processes=4", *keys])
        return memory.estimate(recipe, config, 8, 1) / memory.RESERVED

    # Of gradients and two moments in fp32 three quarters are elsewhere, and of the weights where these are shared too.
    assert needed() - needed("sharding=zero2") == pytest.approx(weights * 12 * 3 / 4, abs=2)
    assert needed() - needed("sharding=fsdp") == pytest.approx(weights * 16 * 3 / 4, abs=2)


def test_an_8b_model_in_four_bits_is_estimated_for_16_gib() -> None:
    """Qwen3-8B's sizes; 5.6 GiB of it are its weights in NF4 and its embeddings in bf16."""
    from transformers import Qwen3Config

    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=4096,
        intermediate_size=12_288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=False,
    )
    recipe = load_recipe("qlora-8b", ["dataset=x"])
    assert recipe.max_length is not None
    needed = memory.estimate(recipe, config, recipe.max_length, recipe.batch_size)
    assert 9 * 2**30 < needed < 15 * 2**30


def test_too_little_memory_stops_a_run_before_anything_is_loaded(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))

    def loaded(*_: Any, **__: Any) -> None:
        pytest.fail("the base was loaded")

    monkeypatch.setattr(models, "load_base", loaded)
    with pytest.raises(UserError) as caught:
        train(workspace, "sft", ["dataset=sums", f"model={tiny_model}"], lambda line: None)
    (line,) = caught.value.lines
    assert line.startswith("memory: a step needs about ")
    for remedy in ("lower batch_size (now 8;", "set gradient_checkpointing=true", "set quantize=nf4"):
        assert remedy in line
    assert [run.state for run in list_runs(workspace)] != ["finished"]
