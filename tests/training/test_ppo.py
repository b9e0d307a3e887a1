"""Whole PPO runs on a tiny model: what moves, what must not, and that what the recipe says is what happens."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evaluation import lineage
from feedback.errors import UserError
from feedback.files import hash_folder
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import finished, ppo, trainable
from training.launch import train
from training.ppo import trainer
from training.prepare import Prepared
from training.runs import Run

HERE = "tests.training.test_ppo"


def quiet(line: str) -> None:
    pass


def plain(conversations: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """The share of characters that are ASCII, which bytes drawn at random rarely are."""
    assert all(conversation[-1]["role"] == "user" for conversation in conversations)
    return [sum(c.isascii() for c in answer) / max(1, len(answer)) for answer in answers]


def no_number(conversations: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [float("nan")] * len(answers)


@pytest.fixture
def keys(small_dataset: DatasetVersion, tiny_model: Path) -> list[str]:
    return [
        "dataset=sums",
        f"model={tiny_model}",
        f"reward={HERE}:plain",
        "rollouts=16",
        "batch_size=8",
        "max_new_tokens=6",
        "learning_rate=5e-3",
        "warmup=0",
        "lora.r=4",
        "lora.targets=attention",
    ]


@pytest.fixture
def sft_run(workspace: Workspace, keys: list[str]) -> Run:
    return train(
        workspace, "sft", [key for key in keys if key[:4] in ("data", "mode", "lora")] + ["max_steps=2"], quiet
    )


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The model that a run trains, with its parameters as they were when it was loaded."""
    seen: dict[str, Any] = {}
    load = trainable.load

    def remember(prepared: Prepared) -> Any:
        model = seen["model"] = load(prepared)
        seen["before"] = {name: p.detach().clone() for name, p in model.named_parameters()}
        return model

    monkeypatch.setattr(trainable, "load", remember)
    return seen


def test_a_step_moves_policy_and_value_function_and_no_bit_of_base_and_reference(
    workspace: Workspace, keys: list[str], sft_run: Run, loaded: dict[str, Any]
) -> None:
    keys.append(f"parent={sft_run.id}")
    run = train(workspace, "ppo", [*keys, "max_steps=1", "rollouts=8", "ppo_epochs=2"], quiet)
    after = dict(loaded["model"].named_parameters())
    started = loaded["before"]
    for name, value in started.items():
        assert torch.equal(value, after[name]) == ("lora" not in name), name
    for name, value in after.items():
        if ".reference." in name:
            assert torch.equal(value, started[name.replace(".reference.", ".default.")]), name
    values = [p for name, p in after.items() if ".value." in name]
    assert len(values) == 2 * 3 * 2 + 1
    assert all(p.abs().max() > 0 for p in values)
    (line,) = [line for line in run.metrics() if "loss" in line]
    assert line["kl"] == pytest.approx(0, abs=1e-5)
    assert line["updates"] == 2
    state = torch.load(run.folder / "checkpoints" / "checkpoint-1" / "optimizer.pt", weights_only=True)["state"]
    # Of the iteration's updates alone: transformers' own step after them is none.
    assert {int(each["step"]) for each in state.values()} == {2}


def test_the_reward_rises_and_the_penalty_keeps_the_policy_near(
    workspace: Workspace, keys: list[str], opinionated_model: Path
) -> None:
    keys += [f"model={opinionated_model}", "max_steps=6", "rollouts=46", "batch_size=46", "max_new_tokens=4"]
    keys += ["lora.targets=all-linear", "learning_rate=1e-2", "seed=1", "update_kl_limit=1"]
    loose = train(workspace, "ppo", [*keys, "kl_coefficient=0.01", "kl_target=null"], quiet)
    held = train(workspace, "ppo", [*keys, "kl_coefficient=0.2", "kl_target=0.2", "kl_horizon=46"], quiet)
    free, bound = ([line for line in run.metrics() if "loss" in line] for run in (loose, held))
    assert free[-1]["reward/mean"] > free[0]["reward/mean"] + 0.2
    assert {line["kl_coefficient"] for line in free} == {0.01}
    assert 0 < bound[-1]["kl"] < free[-1]["kl"]
    # The first answers are the reference's own, so the penalty is lowered once, and raised as soon as they are not.
    assert bound[1]["kl_coefficient"] == pytest.approx(0.8 * 0.2)
    assert bound[-1]["kl_coefficient"] > bound[1]["kl_coefficient"]


def test_the_same_seed_gives_the_same_bytes_however_rows_are_batched(workspace: Workspace, keys: list[str]) -> None:
    """Sampling, whitening and the updates don't depend on how many rows are in one pass."""
    runs = [
        train(workspace, "ppo", [*keys, "max_steps=2", *how], quiet)
        for how in (["batch_size=8"], ["batch_size=8"], ["batch_size=2", "gradient_accumulation=4"], ["seed=1"])
    ]
    logged = [[line["loss"] for line in run.metrics() if "loss" in line] for run in runs]
    adapter = "adapter_model.safetensors"
    hashes = [hash_folder(run.weights)[adapter] for run in runs]
    assert hashes[0] == hashes[1] != hashes[3]
    assert logged[2] == pytest.approx(logged[0], abs=1e-4)
    assert logged[3] != pytest.approx(logged[0], abs=1e-4)


def test_a_step_ends_when_the_policy_has_moved_as_far_as_it_may(workspace: Workspace, keys: list[str]) -> None:
    counts = []
    for limit in ("1e-9", "10"):
        run = train(workspace, "ppo", [*keys, "max_steps=1", "ppo_epochs=3", f"update_kl_limit={limit}"], quiet)
        counts.append(run.metrics()[0]["updates"])
    # Before the first update there is no distance.
    assert counts == [2, 6]


def test_ptx_holds_the_policy_to_the_parents_demonstrations(
    workspace: Workspace, keys: list[str], sft_run: Run
) -> None:
    keys += [f"parent={sft_run.id}", "max_steps=4"]
    lines = train(workspace, "ppo", [*keys, "ptx_weight=1"], quiet).metrics()
    losses = [line["loss/ptx"] for line in lines if "loss" in line]
    assert 0 < losses[-1] < losses[0]


def test_two_processes_learn_as_one(workspace: Workspace, keys: list[str]) -> None:
    # Processes of their own find in the workspace what the tests' Python finds here.
    (workspace.root / "ascii_share.py").write_text(f"from typing import Any, Sequence\n\n{inspect.getsource(plain)}")
    keys += ["max_steps=2", "gradient_accumulation=2", "reward=ascii_share:plain"]
    one = train(workspace, "ppo", [*keys, "rollouts=16", "batch_size=4"], quiet)
    two = train(workspace, "ppo", [*keys, "rollouts=8", "batch_size=2", "processes=2"], quiet)
    names = ("loss", "reward/mean", "kl", "entropy", "loss/value", "clip_share")
    logged = [[[line[name] for name in names] for line in run.metrics() if "loss" in line] for run in (one, two)]
    assert len(logged[0]) == len(logged[1]) == 2
    for ours, theirs in zip(*logged, strict=True):
        assert theirs == pytest.approx(ours, abs=1e-3)
    weights = [load_file(run.weights / "adapter_model.safetensors") for run in (one, two)]
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=1e-3), name


def test_a_reward_run_sits_on_the_policys_base_and_stands_in_the_lineage(
    workspace: Workspace, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = [key for key in keys if key[:4] in ("data", "mode", "lora")]
    judge = train(workspace, "reward", [*same, "max_steps=3", "learning_rate=1e-2"], quiet)
    seen: list[Any] = []
    sample = trainer.sample
    monkeypatch.setattr(trainer, "sample", lambda *args: seen.append((args[1], sample(*args))) or seen[-1][1])
    monkeypatch.setattr(ppo, "load_reward", None)
    keys = [*keys, f"reward={judge.id}", "max_steps=1", "rollouts=8"]
    run = train(workspace, "ppo", keys, quiet)
    # The model of its own that a reward run is for everybody else gives the same scores.
    model, tokenizer = finished.load(judge)
    prompts, answers = seen[0][0], seen[0][1].tokens
    rows = [{"input_ids": prompt + answer} for prompt, answer in zip(prompts, answers, strict=True)]
    scores = finished.outputs(model, rows, tokenizer.pad_token_id)
    assert run.metrics()[0]["reward/mean"] == pytest.approx(scores.mean().item(), abs=1e-5)
    assert run.manifest["reward"] == {"run_id": judge.id, "weights": judge.manifest["weights"]}
    links = [(link.kind, link.id) for link in lineage.ancestors(workspace, run)]
    assert ("run", judge.id) in links
    assert len(set(links)) == len(links)
    assert run.id in {link["id"] for link in lineage.trace(workspace, judge.id)["downstream"]}


def test_a_reward_that_is_no_number_stops_the_run(workspace: Workspace, keys: list[str]) -> None:
    with pytest.raises(UserError, match=rf"reward: '{HERE}:no_number': gave nan for the answer"):
        train(workspace, "ppo", [*keys, f"reward={HERE}:no_number", "max_steps=1"], quiet)


def test_mistakes_of_a_recipe_are_told_together(workspace: Workspace, keys: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        train(workspace, "ppo", [*keys, "reward=reward-7", "max_new_tokens=300", "ptx_weight=1"], quiet)
    lines = caught.value.lines
    assert any("run 'reward-7': not in this workspace" in line for line in lines)
    assert any("max_new_tokens: 300 leaves no room for a prompt in a row's 256 tokens" in line for line in lines)
    assert any("ptx_weight" in line and "parent" in line for line in lines)
    with pytest.raises(UserError, match=r"reward: 'no.such:thing': No module named 'no'"):
        train(workspace, "ppo", [*keys, "reward=no.such:thing"], quiet)
    with pytest.raises(UserError, match=f"reward: '{HERE}:other': {HERE} has no function 'other'"):
        train(workspace, "ppo", [*keys, f"reward={HERE}:other"], quiet)


def test_a_prompt_that_stands_in_pairs_and_demonstrations_is_asked_once(
    workspace: Workspace, small_dataset: DatasetVersion, keys: list[str]
) -> None:
    run = train(workspace, "ppo", [*keys, "max_steps=1"], quiet)
    prompts = {row["prompt"][0]["content"] for row in small_dataset.demonstrations("train")}
    assert run.manifest["preflight"]["rows"] == len(prompts)
    assert "⟦what the policy answers⟧" in run.manifest["preflight"]["example"]
