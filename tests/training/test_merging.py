"""Merged weights answer as the adapter does, or are refused; what 4 bits cost is measured and said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import Linear
from scipy.special import rel_entr

from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import agreement, finished, merging, models
from training.launch import train
from training.runs import Run

KEYS = ["dataset=sums", "max_steps=4", "learning_rate=1e-2"]


def quiet(line: str) -> None:
    pass


@pytest.fixture
def run(workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path) -> Run:
    return train(workspace, "sft", [*KEYS, f"model={tiny_model}"], quiet)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_merged_weights_answer_as_the_adapter_does(
    workspace: Workspace, run: Run, tmp_path: Path, precision: str
) -> None:
    merged = merging.merge(workspace, run, tmp_path / "merged", precision, "card", quiet)
    assert merged.agreement is not None
    assert merged.agreement.kl < merging.TOLERANCE[precision]
    assert merged.drift is None
    loaded = models.load_base(str(tmp_path / "merged"), precision).eval()
    assert {p.dtype for p in loaded.parameters()} == {torch.float32 if precision == "fp32" else torch.bfloat16}
    ids = torch.arange(1, 30)[None]
    with torch.no_grad():
        expected = finished.load(run)[0](input_ids=ids).logits
        found = loaded(input_ids=ids).logits.float()
    assert torch.allclose(found, expected, atol=1e-4 if precision == "fp32" else 0.1)
    base = models.load_base(run.manifest["model"]["name"])
    assert not torch.allclose(base(input_ids=ids).logits, expected, atol=0.1)
    described = json.loads((tmp_path / "merged" / "veritune.json").read_text())
    assert (described["run_id"], described["precision"]) == ("sft-1", precision)
    assert str(tmp_path) not in json.dumps(described)


def test_merged_garbage_is_refused_and_nothing_is_kept(
    workspace: Workspace, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What merging into repacked 4-bit weights did: no error, and rows that have nothing to do with the originals."""

    def garbage(layer: Any, *_: Any, **__: Any) -> None:
        layer.base_layer.weight.data = layer.base_layer.weight.data.flip(0)
        layer.merged_adapters.append("default")

    monkeypatch.setattr(Linear, "merge", garbage)
    with pytest.raises(UserError, match=r"sft-1: merged, it does not answer as its adapter does \(mean KL .*nothing"):
        merging.merge(workspace, run, tmp_path / "merged", "fp32", "card", quiet)
    assert list(tmp_path.glob("*merged*")) == []


def test_an_adapter_that_was_not_merged_is_refused(
    workspace: Workspace, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Linear, "merge", lambda layer, **_: layer.merged_adapters.append("default"))
    with pytest.raises(UserError, match="does not answer as its adapter does"):
        merging.merge(workspace, run, tmp_path / "merged", "fp32", "card", quiet)


def test_what_an_adapter_of_four_bits_loses_is_measured_and_said(
    workspace: Workspace,
    small_dataset: DatasetVersion,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = train(workspace, "sft", [*KEYS, f"model={tiny_model}", "quantize=nf4", "lora.dora=true"], quiet)
    for most, warned in ((1e-4, True), (10.0, False)):
        monkeypatch.setattr(merging, "MOST_DRIFT", (most, 1.0))
        lines: list[str] = []
        merged = merging.merge(workspace, run, tmp_path / f"{warned}", "fp32", "card", lines.append)
        assert merged.agreement is not None
        assert merged.drift is not None
        assert merged.agreement.kl < 1e-5 < 1e-4 < merged.drift.kl
        assert f"merged in fp32 against trained on 4 bits: {merged.drift}" in lines
        assert any(line.startswith("warning: the merged model is not quite the one") for line in lines) == warned
    layers = [p for n, p in models.load_base(str(tmp_path / "True")).named_parameters() if "_proj" in n]
    assert {weight.dtype for weight in layers} == {torch.float32}


def test_answers_end_with_the_eos_that_they_were_trained_with(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, tmp_path: Path
) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text((tiny_model / "chat_template.jinja").read_text().replace("<|end|>", "<|system|>"))
    keys = [*KEYS, f"model={tiny_model}", f"chat_template={template}", "eos_token=<|system|>"]
    run = train(workspace, "sft", keys, quiet)
    folder = merging.cached(workspace, run, quiet)
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [4, 1]
    assert folder.name == run.id
    assert merging.cached(workspace, run, lambda line: pytest.fail(line)) == folder


def test_a_judge_has_nothing_to_merge(workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path) -> None:
    run = train(workspace, "reward", ["dataset=sums", f"model={tiny_model}", "max_steps=1"], quiet)
    with pytest.raises(UserError, match="which judges answers and writes none"):
        merging.cached(workspace, run, quiet)


def test_divergence_and_changes_are_as_scipy_counts_them() -> None:
    first, other = (torch.randn(7, 11).log_softmax(-1) for _ in range(2))
    found = agreement.compare(first, other)
    assert found.kl == pytest.approx(rel_entr(first.exp().numpy(), other.exp().numpy()).sum(-1).mean(), rel=1e-4)
    assert found.changed == pytest.approx(float((first.argmax(1) != other.argmax(1)).float().mean()))
    assert agreement.compare(first, first) == agreement.Agreement(7, 0.0, 0.0)
