"""Models spread over processes: what is refused where it can't be done, and that the configurations are whole ones.

Runs need GPUs and are in test_gpu.py.
"""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from transformers import TrainingArguments

from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import runs, sharding
from training.config import load_recipe
from training.launch import train
from training.recipe_base import Recipe


def recipe(*keys: str) -> Recipe:
    return load_recipe("sft", ["dataset=x", "processes=2", *keys])


@pytest.mark.skipif(torch.cuda.is_available(), reason="only without a GPU")
def test_without_a_gpu_it_is_refused_and_not_left_out(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    keys = ["dataset=sums", f"model={tiny_model}", "processes=2"]
    for asked in ("fsdp", "zero2", "zero3"):
        with pytest.raises(UserError, match=f"sharding: {asked} needs NVIDIA GPUs, and torch sees none; set sharding="):
            train(workspace, "sft", [*keys, f"sharding={asked}"], print)
    assert runs.list_runs(workspace) == []


def test_deepspeed_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "find_spec", lambda name: None)
    assert list(sharding.mistakes(recipe("sharding=fsdp"), cuda=True)) == []
    (line,) = sharding.mistakes(recipe("sharding=zero3"), cuda=True)
    assert line == "sharding: zero3 needs deepspeed, which is not installed; pip install 'veritune[deepspeed]'"


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (["processes=1"], "over several processes; set processes or nodes"),
        (["quantize=nf4"], "does not go with quantize=nf4"),
        (["optimizer=adamw-8bit"], "does not go with optimizer=adamw-8bit"),
        (["discriminative=2.6"], "does not go with discriminative=2.6"),
        (["gradual_unfreezing=true"], "does not go with gradual_unfreezing=true"),
        (["sharding=zero3", "early_stopping=2"], "zero3 does not go with early_stopping=2"),
    ],
)
def test_what_does_not_go_together(keys: list[str], named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "find_spec", lambda name: name)
    (line,) = sharding.mistakes(recipe("sharding=fsdp", *keys), cuda=True)
    assert named in line


def test_ppo_and_grpo_keep_their_models_whole() -> None:
    for method in ("ppo", "grpo"):
        with pytest.raises(UserError, match="sharding"):
            load_recipe(method, ["dataset=x", "reward=m:f", "sharding=fsdp"])


def test_the_configuration_for_fsdp_is_one_of_accelerates(tmp_path: Path) -> None:
    found = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **sharding.arguments(recipe("sharding=fsdp")))
    plugin = FullyShardedDataParallelPlugin(**found.fsdp_plugin_args)
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, True)
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"


@pytest.mark.parametrize("stage", [2, 3])
def test_the_configurations_for_deepspeed_name_their_stage(stage: int) -> None:
    file = sharding.CONFIGS / f"zero{stage}.json"
    config = HfDeepSpeedConfig(sharding.arguments(recipe(f"sharding=zero{stage}"))["deepspeed"])
    assert (config.is_zero2(), config.is_zero3()) == (stage == 2, stage == 3)
    assert config.config == json.loads(file.read_text())


def test_a_run_makes_sure_that_it_is_spread() -> None:
    accelerator = Accelerator(cpu=True)
    sharding.require(accelerator, recipe())
    with pytest.raises(RuntimeError, match="sharding=fsdp was asked for, none is in force"):
        sharding.require(accelerator, recipe("sharding=fsdp"))
