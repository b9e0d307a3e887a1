"""Runs of all weights beside their bases and beside adapters: what is compared, loaded, generated and traced."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation import local
from evaluation.generation import Sampling, sample_answers, stream_pair
from evaluation.sides import load_sides
from evaluation.suites import evaluate
from feedback.errors import UserError
from feedback.files import hash_folder
from feedback.schema import user_message
from feedback.versions import DatasetVersion
from feedback.workspace import SETTINGS_FILE, Workspace
from training import models
from training.launch import train
from training.runs import Run
from ui.backbone import Backbone

QUESTION = user_message("12 + 30?")


def quiet(line: str) -> None:
    pass


@pytest.fixture
def questions(workspace: Workspace) -> None:
    (workspace.root / "held_out.jsonl").write_text(
        "".join(json.dumps({"question": f"{n} + 1?", "answers": [str(n + 1)]}) + "\n" for n in range(4))
    )
    (workspace.root / SETTINGS_FILE).write_text('[evaluation]\nquestions = ["held_out.jsonl"]\n')


@pytest.fixture
def full(workspace: Workspace, questions: None, small_dataset: DatasetVersion, tiny_model: Path) -> Run:
    keys = ["dataset=sums", f"model={tiny_model}", "tuning=full", "max_steps=8", "learning_rate=1e-2"]
    return train(workspace, "sft", keys, quiet)


@pytest.fixture
def adapter(workspace: Workspace, full: Run) -> Run:
    keys = ["dataset=sums", f"parent={full.id}", "max_steps=4", "learning_rate=2e-2", "examples=chosen"]
    return train(workspace, "sft", keys, quiet)


@torch.no_grad()
def logits(side: Any) -> torch.Tensor:
    ids = side.tokenizer.apply_chat_template([QUESTION[0].model_dump()], return_dict=False, return_tensors="pt")
    with side.active():
        return side.model(input_ids=ids).logits


def test_a_full_run_is_evaluated_against_the_model_it_was_trained_on(
    workspace: Workspace, full: Run, tiny_model: Path
) -> None:
    base, tuned = load_sides(full)
    assert base.model is not tuned.model
    assert torch.equal(base.model.lm_head.weight, models.load_base(str(tiny_model)).lm_head.weight)
    assert torch.equal(tuned.model.lm_head.weight, models.load_base(str(full.weights)).lm_head.weight)
    results = evaluate(workspace, full.id, report=quiet)
    assert (results.base, results.tuned) == ("tiny", full.id)
    assert {c.task for c in results.comparisons} == {"held_out", "preferences"}


def test_an_adapter_on_a_full_run_is_compared_with_that_run_on_one_backbone(
    workspace: Workspace, full: Run, adapter: Run
) -> None:
    base, tuned = load_sides(adapter)
    assert base.model is tuned.model
    assert torch.equal(logits(base), logits(load_sides(full)[1]))
    results = evaluate(workspace, adapter.id, report=quiet)
    assert (results.base, results.tuned) == (full.id, adapter.id)
    against = evaluate(workspace, adapter.id, against=full.id, report=quiet)
    assert [c.base for c in against.comparisons] == [c.base for c in results.comparisons]
    assert [c.tuned for c in against.comparisons] == [c.tuned for c in results.comparisons]


def test_weights_that_are_not_in_effect_are_an_error(workspace: Workspace, full: Run, tiny_model: Path) -> None:
    (full.weights / "model.safetensors").write_bytes((tiny_model / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="no longer match its manifest"):
        evaluate(workspace, full.id, report=quiet)
    full.update(weights=hash_folder(full.weights))
    with pytest.raises(UserError, match="answers exactly as tiny does"):
        evaluate(workspace, full.id, report=quiet)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_two_models_answer_token_by_token_as_each_does_alone(full: Run, temperature: float) -> None:
    sides = load_sides(full)
    sampling = Sampling(max_new_tokens=20, temperature=temperature, seed=5)
    steps = list(stream_pair(sides, QUESTION, sampling, lambda: False))
    assert len({first for first, _ in steps}) > 1
    assert steps == list(stream_pair(sides, QUESTION, sampling, lambda: False))
    if temperature == 0:
        alone = [sample_answers(side, [QUESTION], 1, sampling, 1)[0][0] for side in sides]
        assert list(steps[-1]) == alone
    assert list(stream_pair(sides, QUESTION, sampling, lambda: True))[-1] != steps[-1]


def test_a_full_run_answers_as_a_generator_and_in_the_app(workspace: Workspace, full: Run) -> None:
    model = local.load(workspace, full.id)
    assert model.name == full.id
    assert torch.equal(model.side.model.lm_head.weight, models.load_base(str(full.weights)).lm_head.weight)
    with Backbone().hold(full) as (base, tuned):
        assert (base.name, tuned.name) == ("tiny", full.id)


def test_lineage_leads_through_a_full_run(
    workspace: Workspace, full: Run, adapter: Run, veritune: Callable[..., Any]
) -> None:
    found = veritune("--workspace", workspace.root, "lineage", adapter.id, "--json")["upstream"]
    assert [(link["kind"], link["id"]) for link in found if link["kind"] in ("model", "run")] == [
        ("model", full.manifest["model"]["name"]),
        ("run", full.id),
    ]
    (link,) = (link for link in found if link["kind"] == "run")
    assert link["hash"] == full.manifest["weights"]["model.safetensors"]
    assert {link["state"] for link in found} == {"ok"}
    with (full.weights / "model.safetensors").open("ab") as file:
        file.write(b"x")
    found = veritune("--workspace", workspace.root, "lineage", adapter.id, "--json")["upstream"]
    assert {link["id"]: link["state"] for link in found}[full.id] == "altered"
    with pytest.raises(UserError, match="no longer the one that sft-2 was trained on"):
        load_sides(adapter)
