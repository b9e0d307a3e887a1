"""All weights trained: every one moves, the base on disk does not, and what comes of it is a model to go on from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from feedback.errors import UserError
from feedback.files import hash_folder
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import adapters, memory, models
from training.config import load_recipe
from training.launch import train
from training.prepare import prepare
from training.runs import Run
from training.trainable import load

FULL = ["dataset=sums", "tuning=full", "max_steps=1", "learning_rate=1e-3"]


def quiet(line: str) -> None:
    pass


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture
def adapter_run(workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path) -> Run:
    return train(workspace, "sft", ["dataset=sums", f"model={tiny_model}", "max_steps=2", "learning_rate=1e-2"], quiet)


@pytest.mark.parametrize("method", ["sft", "dpo", "reward"])
def test_one_step_changes_every_weight_and_no_byte_of_the_base(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, method: str
) -> None:
    before = hash_folder(tiny_model)
    run = train(workspace, method, [*FULL, f"model={tiny_model}"], quiet)
    assert hash_folder(tiny_model) == before
    assert run.weights == run.folder / "model"
    assert not (run.folder / "adapter").exists()
    assert run.manifest["weights"] == hash_folder(run.weights)
    old, new = weights(tiny_model), weights(run.weights)
    assert new.keys() - old.keys() == ({"score.weight"} if method == "reward" else set())
    assert [name for name in old if torch.equal(old[name], new[name])] == []

    loaded = models.load_base(str(run.weights), head=run.head)
    assert torch.equal(loaded.get_input_embeddings().weight, new["model.embed_tokens.weight"])
    assert models.load_tokenizer(str(run.weights)).chat_template


def test_an_adapter_trains_on_top_of_a_full_run(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    parent = train(workspace, "sft", [*FULL, f"model={tiny_model}"], quiet)
    before = hash_folder(parent.weights)
    child = train(workspace, "dpo", ["dataset=sums", f"parent={parent.id}", "lora.r=4", "max_steps=1"], quiet)
    assert child.manifest["model"]["name"] == str(parent.weights)
    assert child.recipe.lora.r == 4
    assert (child.weights / "adapter_model.safetensors").is_file()
    assert hash_folder(parent.weights) == before
    grandchild = train(workspace, "dpo", ["dataset=sums", f"parent={child.id}", "max_steps=1"], quiet)
    assert grandchild.manifest["model"] == child.manifest["model"]
    assert grandchild.recipe.lora == child.recipe.lora
    assert grandchild.origin["name"] == str(tiny_model)


def test_a_full_run_goes_on_from_an_adapter_that_is_merged_first(
    workspace: Workspace, adapter_run: Run, tiny_model: Path
) -> None:
    values = {"method": "sft", "dataset": "sums", "parent": adapter_run.id, "tuning": "full"}
    merged = load(prepare(workspace, values, "here")).eval()
    adapted = adapters.load_adapter(models.load_base(str(tiny_model)), adapter_run.weights).eval()
    ids = torch.arange(5, 40)[None]
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-5)
        assert not torch.allclose(merged(ids).logits, models.load_base(str(tiny_model)).eval()(ids).logits, atol=1e-2)
    assert all(parameter.requires_grad for parameter in merged.parameters())
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_the_reference_of_full_dpo_is_the_frozen_start(workspace: Workspace, adapter_run: Run) -> None:
    """Equation 7 of arXiv 2305.18290 is log 2 where policy and reference are one, and less once the policy moved."""
    keys = ["dataset=sums", f"parent={adapter_run.id}", "tuning=full", "max_steps=3", "log_every=1", "warmup=0"]
    run = train(workspace, "dpo", [*keys, "batch_size=64", "learning_rate=1e-3"], quiet)
    losses = [line["loss"] for line in run.metrics() if "loss" in line]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses[0] > losses[1] > losses[2]


def test_a_model_that_is_not_the_parents_is_refused(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    parent = train(workspace, "sft", [*FULL, f"model={tiny_model}"], quiet)
    with pytest.raises(UserError, match=rf"is not that of its parent {parent.id}; leave it out"):
        train(workspace, "dpo", ["dataset=sums", f"parent={parent.id}", f"model={tiny_model}"], quiet)


def test_memory_counts_every_weight_and_dpos_copy(tiny_model: Path) -> None:
    config = models.load_config(str(tiny_model))
    parameters = sum(p.numel() for p in models.load_base(str(tiny_model)).parameters())

    def needed(method: str, *keys: str) -> int:
        recipe = load_recipe(method, ["dataset=x", "batch_size=1", "precision=fp32", *keys])
        return memory.check(recipe, config, 8, sequences=2)["memory_needed"]

    frozen = needed("sft", "lora.r=1", "lora.targets=[q_proj]")
    adapter = 2 * 1 * (32 + 32)
    full = needed("sft", "tuning=full")
    expected = (parameters * (16 - 4) - adapter * 16) * memory.RESERVED
    assert full - frozen == pytest.approx(expected, abs=1)
    more = needed("dpo", "tuning=full") - needed("dpo", "lora.r=1", "lora.targets=[q_proj]")
    assert more == pytest.approx(expected + 4 * parameters * memory.RESERVED, abs=1)


def test_too_little_memory_names_the_adapter_as_a_remedy(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free: Any = type("Memory", (), {"available": 1000})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    recipe = load_recipe("sft", ["dataset=x", "tuning=full"])
    with pytest.raises(UserError, match=r"memory: .* or set gradient_checkpointing=true, or set tuning=lora"):
        memory.check(recipe, models.load_config(str(tiny_model)), 64, sequences=8)


def test_the_model_card_says_that_all_weights_were_trained(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    run = train(workspace, "sft", [*FULL, f"model={tiny_model}"], quiet)
    assert "All weights of `tiny` after SFT" in (run.folder / "MODEL_CARD.md").read_text()
    assert json.loads((run.folder / "manifest.json").read_text())["recipe"]["tuning"] == "full"
