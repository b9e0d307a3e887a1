"""ULMFiT's layers: their order in several architectures, rates by depth, and thawing from the top."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PreTrainedConfig,
)

from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import adapters, models
from training.config import load_recipe
from training.launch import train
from training.layers import check_layers, discriminate, hold_back, trained_layers
from training.recipe_base import Lora
from training.trainer import RunTrainer

SMALL: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
LLAMA = LlamaConfig(**SMALL, intermediate_size=32)
TIED = LlamaConfig(**SMALL, intermediate_size=32, tie_word_embeddings=True)


def quiet(line: str) -> None:
    pass


def skeleton(config: PreTrainedConfig, labels: bool = False) -> Any:
    kind = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    return kind.from_config(config)


@pytest.mark.parametrize(
    ("model", "bottom", "top"),
    [
        (skeleton(LLAMA), "model.embed_tokens.weight", ["model.norm.weight", "lm_head.weight"]),
        (skeleton(LLAMA, labels=True), "model.embed_tokens.weight", ["model.norm.weight", "score.weight"]),
        (skeleton(GPTNeoXConfig(**SMALL, intermediate_size=32)), "gpt_neox.embed_in.weight", ["lm_head.weight"]),
        (
            skeleton(BertConfig(**SMALL, intermediate_size=32), labels=True),
            "bert.embeddings.LayerNorm.weight",
            ["bert.pooler.dense.weight", "classifier.bias"],
        ),
        (
            skeleton(OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16, tie_word_embeddings=False)),
            "model.decoder.embed_positions.weight",
            ["model.decoder.final_layer_norm.weight", "lm_head.weight"],
        ),
        (
            skeleton(MixtralConfig(**SMALL, num_key_value_heads=2, intermediate_size=32, num_local_experts=2)),
            "model.embed_tokens.weight",
            ["lm_head.weight"],
        ),
    ],
    ids=["llama", "llama classifier", "gpt-neox", "bert", "opt", "mixtral"],
)
def test_embeddings_are_the_lowest_layer_and_the_head_is_the_topmost(model: Any, bottom: str, top: list[str]) -> None:
    layers = trained_layers(model)
    assert len(layers) == 5
    assert bottom in layers[0]
    assert set(top) <= layers[-1].keys()
    for number, layer in enumerate(layers[1:-1]):
        assert all(f".{number}." in name for name in layer)
    assert sorted(name for layer in layers for name in layer) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("config", [TIED, GPT2Config(vocab_size=40, n_embd=16, n_head=2, n_layer=3)])
def test_a_norm_without_a_head_of_its_own_belongs_to_the_last_block(config: PreTrainedConfig) -> None:
    layers = trained_layers(skeleton(config))
    assert len(layers) == 4
    assert any(name in layers[-1] for name in ("model.norm.weight", "transformer.ln_f.weight"))


def test_an_adapters_layers_are_the_blocks_that_it_sits_in() -> None:
    model = adapters.add_adapter(skeleton(LLAMA), Lora(r=2, targets=["layers.1.mlp.up_proj", "layers.2.mlp.up_proj"]))
    layers = trained_layers(model)
    assert [len(layer) for layer in layers] == [2, 2]
    assert all(".layers.2." in name for name in layers[1])
    with_head = adapters.add_adapter(skeleton(LLAMA, labels=True), Lora(r=2), "labels")
    assert [any("score" in name for name in layer) for layer in trained_layers(with_head)] == [
        False,
        False,
        False,
        True,
    ]


def test_rates_are_those_of_section_3_2() -> None:
    """eta of layer l - 1 is eta of layer l divided by 2.6, for the decayed weights as for the others."""
    layers = trained_layers(skeleton(LLAMA))
    parameters = [p for layer in layers for p in layer.values()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    discriminate(optimizer, layers, 0.01, 2.6)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    eta = 0.01
    for layer in reversed(layers):
        for p in layer.values():
            assert rates[id(p)] == (pytest.approx(eta), 0.1 if p.dim() > 1 else 0.0)
        eta /= 2.6
    assert len(rates) == len(parameters)
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_one_more_layer_trains_in_each_epoch() -> None:
    layers = trained_layers(skeleton(LLAMA))

    def training(epoch: float) -> list[bool]:
        for layer in layers:
            for p in layer.values():
                p.grad = torch.ones_like(p)
        hold_back(layers, epoch)
        return [all(p.grad is not None for p in layer.values()) for layer in layers]

    assert training(0) == [False, False, False, False, True]
    assert training(1.0) == [False, False, False, True, True]
    assert training(1.98) == [False, False, False, True, True]
    assert training(4.0) == training(5.0) == training(9.0) == [True] * 5


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_an_adapters_lower_layers_wait_whatever_its_reference_does(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, method: str
) -> None:
    """DPO's reference switches the adapter off and on, after which PEFT would train all of it."""
    keys = ["dataset=sums", f"model={tiny_model}", "learning_rate=1e-2", "epochs=1", "batch_size=8"]
    keys += ["gradual_unfreezing=true", "gradient_accumulation=2", "gradient_checkpointing=true"]
    run = train(workspace, method, keys, quiet)
    saved = load_file(run.weights / "adapter_model.safetensors")
    moved = {name for name, value in saved.items() if "lora_B" in name and value.any()}
    assert len(moved) == 7
    assert all(".layers.1." in name for name in moved)


def test_a_run_trains_by_these_rates_and_thaws_by_epochs(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RunTrainer] = []
    attach = RunTrainer.attach
    monkeypatch.setattr(RunTrainer, "attach", lambda self, *rest: (seen.append(self), attach(self, *rest))[1])
    lines: list[str] = []
    keys = ["dataset=sums", f"model={tiny_model}", "tuning=full", "learning_rate=1e-3", "discriminative=2.6"]
    keys += ["gradual_unfreezing=true", "epochs=2", "batch_size=60", "schedule=slanted-triangular", "log_every=1"]
    keys += ["gradient_checkpointing=true"]
    run = train(workspace, "sft", keys, lines.append)
    assert any("3 layers train, at peak rates from 0.001 (top) to 0.00015 (bottom), one more from" in s for s in lines)
    before = dict(models.load_base(str(tiny_model)).named_parameters())
    after = dict(models.load_base(str(run.weights)).named_parameters())
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    # The tied embedding is the lowest layer, and its turn would have come in a third epoch.
    assert changed == before.keys() - {"model.embed_tokens.weight"}
    rates = sorted({group["lr"] / seen[0].optimizer.param_groups[0]["lr"] for group in seen[0].optimizer.param_groups})
    assert rates == pytest.approx([2.6**-2, 2.6**-1, 1])
    logged = [line["learning_rate"] for line in run.metrics() if "learning_rate" in line]
    assert logged == pytest.approx([1e-3 / 32, 1e-3])


@pytest.mark.parametrize("key", ["discriminative=2.6", "gradual_unfreezing=true"])
def test_one_layer_alone_is_refused(tiny_model: Path, key: str) -> None:
    recipe = load_recipe("sft", ["dataset=x", "lora.targets=[layers.1.mlp.up_proj]", key])
    model = models.skeleton(models.load_config(str(tiny_model)))
    adapters.freeze_but_targets(model, recipe.lora, recipe.head)
    with pytest.raises(UserError, match=rf"{key.split('=')[0]}: all that trains sits in one layer; leave it out"):
        check_layers(recipe, model)


def test_an_architecture_without_a_list_of_layers_is_refused() -> None:
    with pytest.raises(UserError, match="their order is unknown"):
        trained_layers(torch.nn.Sequential(torch.nn.Linear(2, 2)))
