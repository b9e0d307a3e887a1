"""A finished reward run at work, and what else can be a reward."""

import sys
from pathlib import Path

import pytest
import torch

from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import adapters, models, runs
from training.batches import encode
from training.launch import train
from training.rewards import load_reward
from training.scores import load_scorer

PROMPTS = [[{"role": "user", "content": text}] for text in ("1 + 1?", "a longer question, please: 2 + 2?", "1 + 1?")]
ANSWERS = ["2", "four", "three, I should think"]


def quiet(line: str) -> None:
    pass


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_run_scores_answers_one_by_one_or_together(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, tuning: str
) -> None:
    keys = ["dataset=sums", f"model={tiny_model}", "max_steps=2", "learning_rate=1e-3", f"tuning={tuning}"]
    run = train(workspace, "reward", keys, quiet)
    scorer = load_scorer(run)
    together = scorer(PROMPTS, ANSWERS)
    assert together == pytest.approx(
        [scorer([prompt], [answer])[0] for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)], abs=1e-5
    )
    assert together == load_reward(workspace, run.id)(PROMPTS, ANSWERS)
    # By hand: the head's output at the EOS.
    model = models.load_base(str(run.weights if tuning == "full" else tiny_model), head="score")
    model.config.pad_token_id = scorer.tokenizer.pad_token_id
    model = (model if tuning == "full" else adapters.load_adapter(model, run.weights)).eval()
    prompt, answer = encode(scorer.tokenizer, PROMPTS[1], ANSWERS[1])
    inner = model if tuning == "full" else model.base_model.model
    with torch.no_grad():
        last = inner.model(input_ids=torch.tensor([prompt + answer])).last_hidden_state[:, -1]
        assert together[1] == pytest.approx(inner.score(last).item(), abs=1e-5)


def test_a_reward_run_goes_on_from_a_run_that_learned_to_write_and_not_the_other_way(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    writer = train(workspace, "sft", ["dataset=sums", f"model={tiny_model}", "max_steps=1"], quiet)
    scorer = train(workspace, "reward", ["dataset=sums", f"parent={writer.id}", "max_steps=1"], quiet)
    assert scorer.recipe.lora == writer.recipe.lora
    again = train(workspace, "reward", ["dataset=sums", f"parent={scorer.id}", "max_steps=1"], quiet)
    assert load_scorer(again)(PROMPTS, ANSWERS) != load_scorer(scorer)(PROMPTS, ANSWERS)
    with pytest.raises(UserError, match="run reward-1: a reward model, which judges answers and writes none"):
        train(workspace, "dpo", ["dataset=sums", f"parent={scorer.id}", "max_steps=1"], quiet)
    with pytest.raises(UserError, match="run sft-1: a sft model, which gives no scores; name a reward run"):
        load_scorer(writer)
    assert len(runs.list_runs(workspace)) == 3


def test_a_function_of_the_workspace_can_be_the_reward(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", sys.path.copy())
    (workspace.root / "taste.py").write_text(
        "def short(prompts, answers):\n    return [-len(a) for a in answers]\n"
        "def lazy(prompts, answers):\n    return [0.0]\n"
        "def broken(prompts, answers):\n    return [float('nan')] * len(answers)\n"
    )
    assert load_reward(workspace, "taste:short")(PROMPTS, ANSWERS) == [-1.0, -4.0, -21.0]
    for name, words in (
        ("taste:lazy", "gave 1 scores for 3 answers"),
        ("taste:broken", "gave nan for the answer '2'"),
    ):
        with pytest.raises(UserError, match=words):
            load_reward(workspace, name)(PROMPTS, ANSWERS)
    with pytest.raises(UserError, match="taste has no function 'long'"):
        load_reward(workspace, "taste:long")
    with pytest.raises(UserError, match=r"No module named 'tastes'; put tastes\.py into"):
        load_reward(workspace, "tastes:short")
    with pytest.raises(UserError, match="run 'reward-9': not in this workspace"):
        load_reward(workspace, "reward-9")
