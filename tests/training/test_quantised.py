"""4-bit bases: trained on, left as they are bit for bit, and never repacked behind one's back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import adapters, models
from training.launch import resume, train
from training.runs import Run
from training.trainer import Metrics


def quiet(line: str) -> None:
    pass


@pytest.fixture
def base(tiny_model: Path) -> Any:
    return models.load_base(str(tiny_model), quantize="nf4")


def test_linear_layers_have_four_bits_and_the_rest_is_as_it_was(base: Any, tiny_model: Path) -> None:
    whole = dict(models.load_base(str(tiny_model)).named_parameters())
    for name, parameter in base.named_parameters():
        if "_proj" in name:
            state = parameter.quant_state
            assert (parameter.dtype, state.quant_type, state.nested) == (torch.uint8, "nf4", True)
            assert parameter.numel() == whole[name].numel() / 2
        else:
            assert torch.equal(parameter, whole[name])


def test_an_answer_in_eval_mode_repacks_nothing(base: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On processors with AVX512-BF16 bitsandbytes repacks at the first one; here the processor is made to look so."""
    import bitsandbytes

    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    loaded = models.load_base(str(tiny_model), quantize="nf4").eval().requires_grad_(False)
    before = models.checksums(loaded)
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        answers = loaded(input_ids=ids).logits
        assert models.checksums(loaded) == before
        assert torch.equal(answers, base.eval()(input_ids=ids).logits)
        # The fault itself, planted: what is kept from happening would have been seen.
        monkeypatch.setattr(bitsandbytes, "matmul_4bit", lambda x, weight, bias, quant_state: x.new_zeros(()))
        layer = loaded.model.layers[0].mlp.down_proj
        layer.support_avx512bf16_for_cpu = True
        layer(torch.ones(1, 64))
    assert models.checksums(loaded) != before


@pytest.mark.parametrize("part", ["codes", "scales"])
def test_one_altered_bit_of_a_frozen_weight_is_seen(base: Any, part: str) -> None:
    base.requires_grad_(False)
    before = models.checksums(base)
    weight = base.model.layers[1].mlp.up_proj.weight
    altered = weight.data if part == "codes" else weight.quant_state.absmax
    altered.view(-1)[5] ^= 1
    after = models.checksums(base)
    assert [name for name in before if before[name] != after[name]] == [
        "model.layers.1.mlp.up_proj.weight" + ("" if part == "codes" else ".absmax")
    ]


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_step_on_four_bits_changes_every_adapter_weight_and_no_bit_of_the_base(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    add_adapter = adapters.add_adapter

    def remember(model: Any, *arguments: Any) -> Any:
        adapted = seen["model"] = add_adapter(model, *arguments)
        seen["base"] = {k: v for k, v in models.checksums(adapted).items() if "lora_" not in k}
        seen["before"] = {n: p.detach().clone() for n, p in adapted.named_parameters() if p.requires_grad}
        return adapted

    monkeypatch.setattr(adapters, "add_adapter", remember)
    keys = ["dataset=sums", f"model={tiny_model}", "quantize=nf4", "max_steps=1", "learning_rate=1e-3"]
    run = train(workspace, method, keys, quiet)
    assert models.checksums(seen["model"]).items() >= seen["base"].items()
    after = dict(seen["model"].named_parameters())
    assert [name for name, value in seen["before"].items() if torch.equal(value, after[name])] == []
    saved = load_file(run.weights / "adapter_model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}


def test_a_parents_adapter_on_four_bits_is_its_own_reference(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    """DPO's first loss is ln 2 only where policy and reference are equal to the last bit."""
    common = ["dataset=sums", "max_steps=1", "log_every=1", "learning_rate=5e-3"]
    parent = train(workspace, "sft", [*common, f"model={tiny_model}", "quantize=nf4"], quiet)
    run = train(workspace, "dpo", [*common, f"parent={parent.id}"], quiet)
    assert run.recipe.quantize == "nf4"
    first = next(line for line in run.metrics() if "loss" in line)
    assert first["loss"] == pytest.approx(0.69314718, abs=1e-7)
    whole = train(workspace, "dpo", [*common, f"parent={parent.id}", "quantize=none"], quiet)
    assert whole.recipe.quantize == "none"


def test_paged_states_without_a_gpu_are_replaced_and_said_to_be(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lines: list[str] = []
    keys = ["dataset=sums", f"model={tiny_model}", "max_steps=1", "optimizer=paged-adamw-8bit"]
    run = train(workspace, "sft", keys, lines.append)
    said = "optimizer: paged-adamw-8bit needs an NVIDIA GPU; used instead: adamw-8bit"
    assert said in lines
    assert (run.manifest["optimizer"], run.manifest["replaced"]) == ("adamw-8bit", [said])
    assert run.recipe.optimizer == "paged-adamw-8bit"


def test_moments_in_eight_bits_go_on_after_a_stop_as_if_there_had_been_none(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ["dataset=sums", f"model={tiny_model}", "quantize=nf4", "optimizer=adamw-8bit", "max_steps=6"]
    # bitsandbytes keeps moments of fewer than 4,096 weights in 32 bits.
    keys += ["checkpoint_every=2", "lora.r=128", "learning_rate=1e-3", "batch_size=4"]
    whole = train(workspace, "sft", keys, quiet)
    state = torch.load(whole.checkpoints()[-1] / "optimizer.pt", weights_only=True)["state"]
    assert {entry["__bnb_optimizer_quant_state__"]["state1"].dtype for entry in state.values()} == {torch.uint8}

    on_step_end = Metrics.on_step_end

    def stop(self: Metrics, args: Any, state: Any, control: Any, **rest: Any) -> None:
        on_step_end(self, args, state, control, **rest)
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Metrics, "on_step_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train(workspace, "sft", keys, quiet)
    stopped = Run(workspace.runs / "sft-2")
    assert stopped.state == "stopped"
    resume(workspace, stopped.id, quiet)
    name = "adapter_model.safetensors"
    assert whole.manifest["weights"][name] == stopped.manifest["weights"][name]
