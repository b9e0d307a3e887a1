"""The seven safeguards: each fault is planted, and the run is refused with the reason and the remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import adapters, models, runs
from training.errors import TrainingError
from training.launch import train

METHODS = ("sft", "dpo", "kto", "orpo")


def quiet(line: str) -> None:
    pass


@pytest.fixture
def keys(small_dataset: DatasetVersion, tiny_model: Path) -> list[str]:
    return ["dataset=sums", f"model={tiny_model}", "max_steps=2"]


def altered(tiny_model: Path, folder: Path, **entries: Any) -> Path:
    """The tiny model with a tokenizer of which something is wrong."""
    tokenizer = models.load_tokenizer(str(tiny_model))
    for name, value in entries.items():
        setattr(tokenizer, name, value)
    models.load_base(str(tiny_model)).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_an_eos_that_the_batch_masks(
    workspace: Workspace, keys: list[str], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As collators do that mask by the pad token's id where that is the EOS."""
    from training import preflight

    check = preflight.check_supervision

    def planted(collate: Callable[..., Any], rows: Any, eos: int) -> None:
        def mask(rows: Any) -> Any:
            batch = collate(rows)
            ends = batch["input_ids"] == eos
            if "labels" in batch:
                batch["labels"] = batch["labels"].masked_fill(ends, -100)
            else:
                batch["completion_mask"] = batch["completion_mask"].masked_fill(ends, 0)
            return batch

        check(mask, rows, eos)

    monkeypatch.setattr(preflight, "check_supervision", planted)
    with pytest.raises(TrainingError, match=r"sees 0 of the \d+ EOS tokens that end its answers.*set a pad_token"):
        train(workspace, method, keys, quiet)
    (run,) = runs.list_runs(workspace)
    assert (run.state, run.metrics(), run.weights.exists()) == ("failed", [], False)


def test_a_template_that_ends_answers_otherwise_than_the_tokenizer(
    workspace: Workspace, keys: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    template = models.load_tokenizer(str(tiny_model)).chat_template.replace("<|end|>", "<|system|>")
    wrong = altered(tiny_model, tmp_path / "wrong", chat_template=template)
    with pytest.raises(UserError, match=r"does not hold the tokenizer's EOS '<\|end\|>', so the model would never"):
        train(workspace, "sft", [*keys, f"model={wrong}"], quiet)
    assert runs.list_runs(workspace) == []


def test_a_tokenizer_of_another_model(workspace: Workspace, keys: list[str], tiny_model: Path, tmp_path: Path) -> None:
    folder = altered(tiny_model, tmp_path / "wrong")
    tokenizer = models.load_tokenizer(str(folder))
    tokenizer.add_tokens(["<one too many>"])
    tokenizer.save_pretrained(str(folder))
    with pytest.raises(UserError, match="its tokenizer has 262 tokens, its embedding only 261"):
        train(workspace, "sft", [*keys, f"model={folder}"], quiet)


def test_a_pad_token_that_is_the_eos(workspace: Workspace, keys: list[str], tiny_model: Path, tmp_path: Path) -> None:
    wrong = altered(tiny_model, tmp_path / "wrong", pad_token="<|end|>")
    with pytest.raises(UserError, match=r"pads with its EOS '<\|end\|>'.*set pad_token=<\|pad\|>"):
        train(workspace, "sft", [*keys, f"model={wrong}"], quiet)


def test_answers_that_are_cut_off(workspace: Workspace, keys: list[str]) -> None:
    with pytest.raises(UserError, match=r"max_length: \d+% of the \d+ rows are cut off at 12 tokens"):
        train(workspace, "sft", [*keys, "max_length=12"], quiet)


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_that_is_not_applied(
    workspace: Workspace, keys: list[str], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = adapters.add_adapter

    def planted(*arguments: Any) -> Any:
        adapted = add(*arguments)
        for name, module in adapted.named_modules():
            if name.endswith("lora_B.default"):
                # What it computes goes nowhere, though its weights train.
                module.register_forward_hook(lambda *hooked: hooked[2] - hooked[2].detach())
        return adapted

    monkeypatch.setattr(adapters, "add_adapter", planted)
    with pytest.raises(TrainingError, match="the first step left the model's answers as they were: the adapter is not"):
        train(workspace, method, keys, quiet)
    assert not runs.list_runs(workspace)[0].weights.exists()


def test_a_target_that_matches_nothing(workspace: Workspace, keys: list[str]) -> None:
    with pytest.raises(UserError, match=r"lora\.targets: 'w_pack' matches no layer; there are down_proj, gate_proj"):
        train(workspace, "sft", [*keys, "lora.targets=[w_pack]"], quiet)


def test_too_little_memory(workspace: Workspace, keys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("the fault is planted in the processor's memory")
    small = psutil.virtual_memory()._replace(available=2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: small)
    with pytest.raises(UserError, match=r"memory: a step needs about .* are free; lower batch_size"):
        train(workspace, "sft", keys, quiet)
    assert runs.list_runs(workspace) == []
