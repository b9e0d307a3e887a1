"""LoRA's presets find the same projections under each architecture's own names."""

from collections.abc import Callable
from typing import Any

import pytest
import transformers

from feedback.errors import UserError
from training.adapters import add_adapter, linear_layers
from training.recipe_base import Head, Lora

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
MODERN = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2}
CLASSES: dict[Head, Any] = {
    "causal-lm": transformers.AutoModelForCausalLM,
    "labels": transformers.AutoModelForSequenceClassification,
}
# By preset: what the preset before it lacks. Names are ends that are unambiguous within a layer.
LLAMA = (
    "self_attn.q_proj self_attn.v_proj",
    "self_attn.o_proj",
    "self_attn.k_proj mlp.gate_proj mlp.up_proj mlp.down_proj",
)
BERT = (
    "attention.self.query attention.self.value",
    "attention.output.dense",
    "attention.self.key intermediate.dense {layer}.output.dense",
)
ARCHITECTURES: dict[str, tuple[Callable[[], Any], Head, str, tuple[str, str, str]]] = {
    "llama": (lambda: transformers.LlamaConfig(**MODERN), "causal-lm", "model.layers", LLAMA),
    "mistral": (lambda: transformers.MistralConfig(**MODERN), "causal-lm", "model.layers", LLAMA),
    "qwen2": (lambda: transformers.Qwen2Config(**MODERN), "causal-lm", "model.layers", LLAMA),
    "qwen3": (lambda: transformers.Qwen3Config(**MODERN, head_dim=8), "causal-lm", "model.layers", LLAMA),
    "gpt2": (
        lambda: transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4),
        "causal-lm",
        "transformer.h",
        ("attn.c_attn", "attn.c_proj", "mlp.c_fc mlp.c_proj"),
    ),
    "bert": (lambda: transformers.BertConfig(**SIZES, intermediate_size=48), "labels", "bert.encoder.layer", BERT),
    "roberta": (
        lambda: transformers.RobertaConfig(**SIZES, intermediate_size=48),
        "labels",
        "roberta.encoder.layer",
        BERT,
    ),
    "distilbert": (
        lambda: transformers.DistilBertConfig(vocab_size=64, dim=32, hidden_dim=48, n_layers=2, n_heads=4),
        "labels",
        "distilbert.transformer.layer",
        ("attention.q_lin attention.v_lin", "attention.out_lin", "attention.k_lin ffn.lin1 ffn.lin2"),
    ),
    "modernbert": (
        lambda: transformers.ModernBertConfig(**SIZES, intermediate_size=48),
        "labels",
        "model.layers",
        ("attn.Wqkv", "attn.Wo", "mlp.Wi mlp.Wo"),
    ),
    "phi": (
        lambda: transformers.PhiConfig(**MODERN),
        "causal-lm",
        "model.layers",
        ("self_attn.q_proj self_attn.v_proj", "self_attn.dense", "self_attn.k_proj mlp.fc1 mlp.fc2"),
    ),
    "phi3": (
        lambda: transformers.Phi3Config(**MODERN, eos_token_id=1, bos_token_id=1),
        "causal-lm",
        "model.layers",
        ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj mlp.down_proj"),
    ),
    "gpt_neox": (
        lambda: transformers.GPTNeoXConfig(**SIZES, intermediate_size=48),
        "causal-lm",
        "gpt_neox.layers",
        ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h mlp.dense_4h_to_h"),
    ),
    "falcon": (
        lambda: transformers.FalconConfig(**SIZES, ffn_hidden_size=48),
        "causal-lm",
        "transformer.h",
        (
            "self_attention.query_key_value",
            "self_attention.dense",
            "mlp.dense_h_to_4h mlp.dense_4h_to_h",
        ),
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_preset_sits_on_the_same_projections_in_every_architecture(name: str) -> None:
    make, head, layers, expected = ARCHITECTURES[name]
    names = ""
    for preset, more in zip(("attention-minimal", "attention", "all-linear"), expected, strict=True):
        names += f" {more}"
        model = CLASSES[head].from_config(make())
        adapted = add_adapter(model, Lora(r=2, targets=preset), head)
        found = {
            path.removeprefix("base_model.model.")
            for path, module in adapted.named_modules()
            if hasattr(module, "lora_A")
        }
        prefixes = [f"{layers}.{number}" for number in (0, 1)]
        assert found == {
            f"{prefix}.{end}" if "{layer}" not in end else end.format(layer=prefix)
            for prefix in prefixes
            for end in names.split()
        }


def test_a_target_that_matches_nothing_names_what_there_is() -> None:
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4))
    with pytest.raises(UserError) as caught:
        add_adapter(model, Lora(targets=["q_proj", "c_attn", "gate"]))
    assert list(caught.value.lines) == [
        "lora.targets: 'q_proj' matches no layer; there are c_attn, c_fc, c_proj",
        "lora.targets: 'gate' matches no layer; there are c_attn, c_fc, c_proj",
    ]


def test_a_preset_on_an_architecture_without_attention_names_what_there_is() -> None:
    model = transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4)
    )
    with pytest.raises(UserError, match="'attention' matches no layer; there are dt_proj, in_proj, out_proj, x_proj"):
        add_adapter(model, Lora(targets="attention"))


def test_dora_and_rslora_are_made_as_asked() -> None:
    """DoRA begins with each weight's own length (arXiv 2402.09353), rsLoRA divides by the root (2312.03732)."""
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4))
    whole = {path: layer.weight.detach().clone() for path, layer in linear_layers(model).items()}
    adapted = add_adapter(model, Lora(r=4, alpha=8, dora=True, rslora=True, targets="attention"))
    layer = adapted.base_model.model.transformer.h[0].attn.c_attn
    assert layer.scaling["default"] == 8 / 4**0.5
    lengths = layer.lora_magnitude_vector["default"].weight
    assert lengths.requires_grad
    assert lengths.flatten().tolist() == pytest.approx(whole["transformer.h.0.attn.c_attn"].norm(dim=0).tolist(), 1e-5)
