"""Models with a head that gives scores or labels in place of words, and adapters that carry it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    PreTrainedConfig,
    RobertaConfig,
    set_seed,
)

from feedback.errors import UserError
from training import adapters, models
from training.recipe_base import Head, Lora

LORA = Lora(r=4, alpha=8)
IDS = torch.tensor([[5, 6, 7, 1]])


def with_head(model: Path, head: Head, labels: tuple[str, ...] = ()) -> torch.nn.Module:
    set_seed(0)
    base = models.load_base(str(model), head=head, labels=labels)
    base.config.pad_token_id = 0
    return base


@pytest.mark.parametrize(("head", "labels", "outputs"), [("score", (), 1), ("labels", ("no", "yes", "unsure"), 3)])
def test_a_head_is_trained_and_saved_with_the_adapter(
    tiny_model: Path, tmp_path: Path, head: Head, labels: tuple[str, ...], outputs: int
) -> None:
    adapted = adapters.add_adapter(with_head(tiny_model, head, labels), LORA, head)
    assert adapted(input_ids=IDS).logits.shape == (1, outputs)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert any(name.endswith("score.modules_to_save.default.weight") for name in trained)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name in trained:
                parameter.add_(0.1)
    adapted.save_pretrained(str(tmp_path))
    assert any("score" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    again = adapters.load_adapter(with_head(tiny_model, head, labels), tmp_path)
    assert torch.equal(again.eval()(input_ids=IDS).logits, adapted.eval()(input_ids=IDS).logits)
    assert not [name for name, parameter in again.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize(
    ("kind", "whole"),
    [
        (BertConfig, {"bert.pooler.dense", "classifier"}),
        (RobertaConfig, {"classifier.dense", "classifier.out_proj"}),
        (DistilBertConfig, {"pre_classifier", "classifier"}),
        (DebertaV2Config, {"pooler.dense", "classifier"}),
    ],
)
def test_an_adapter_brings_all_of_an_encoders_head(kind: type[PreTrainedConfig], whole: set[str]) -> None:
    """What stands above the layers is new in a pretrained encoder, and would stay random if it did not train."""
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    model = AutoModelForSequenceClassification.from_config(kind(**sizes, intermediate_size=32))
    adapted = adapters.add_adapter(model, LORA, "labels")
    trained = {
        name.removeprefix("base_model.model.").replace("modules_to_save.default.", "").rsplit(".", 1)[0]
        for name, parameter in adapted.named_parameters()
        if parameter.requires_grad and "lora_" not in name
    }
    assert trained == whole
    assert not [name for name, _ in adapted.named_parameters() if "lora_" in name and "layer" not in name]


def test_labels_are_named_in_the_models_configuration(tiny_model: Path) -> None:
    model = models.load_base(str(tiny_model), head="labels", labels=("faithful", "invented"))
    assert model.config.id2label == {0: "faithful", 1: "invented"}


def test_the_seed_decides_the_head(tiny_model: Path) -> None:
    first, second = (with_head(tiny_model, "score").score.weight for _ in range(2))
    set_seed(1)
    other = models.load_base(str(tiny_model), head="score").score.weight
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_score_head_goes_on_from_an_adapter_that_was_trained_to_write(tiny_model: Path, tmp_path: Path) -> None:
    writer = adapters.add_adapter(models.load_base(str(tiny_model)), LORA)
    with torch.no_grad():
        for name, parameter in writer.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    writer.save_pretrained(str(tmp_path))
    scorer = adapters.add_adapter_from(with_head(tiny_model, "score"), LORA, "score", tmp_path)
    kept = dict(writer.named_parameters())
    moved = {name: value for name, value in scorer.named_parameters() if "lora_" in name}
    assert len(moved) == 2 * 2 * 7
    assert all(torch.equal(value, kept[name]) for name, value in moved.items())
    fewer = Lora(r=4, alpha=8, targets=["q_proj"])
    with pytest.raises(UserError, match="its adapter does not fit under a head of score"):
        adapters.add_adapter_from(with_head(tiny_model, "score"), fewer, "score", tmp_path)


def test_weights_that_lack_a_part_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = load_file(tmp_path / "model.safetensors")
    lost = "model.layers.1.self_attn.q_proj.weight"
    save_file({k: v for k, v in whole.items() if k != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    for head in ("causal-lm", "score"):
        with pytest.raises(UserError, match=rf"its weights lack {lost}, which would be left to chance"):
            models.load_base(str(tmp_path), head=head)
