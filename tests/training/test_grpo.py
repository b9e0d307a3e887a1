"""GRPO against a reward: that it learns, and how many steps it takes."""

from pathlib import Path
from statistics import fmean

import pytest

from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training.grpo import of_conversations
from training.launch import train

KEYS = ["reward=alphabet:early", "batch_size=16", "generations=8", "max_new_tokens=6", "log_every=1"]


@pytest.fixture
def alphabet(workspace: Workspace) -> None:
    """A reward for the characters that stand early in the alphabet, as a share of all."""
    code = "def early(prompts, answers):\n    return [sum(c < 'n' for c in a) / max(1, len(a)) for a in answers]\n"
    (workspace.root / "alphabet.py").write_text(code)


def test_answers_come_nearer_to_what_is_rewarded(
    workspace: Workspace, small_dataset: DatasetVersion, opinionated_model: Path, alphabet: None
) -> None:
    more = ["batch_size=64", "max_steps=12", "learning_rate=1e-2"]
    run = train(workspace, "grpo", ["dataset=sums", f"model={opinionated_model}", *KEYS, *more], lambda line: None)
    steps = [line for line in run.metrics() if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    first, last = (fmean(line["reward"] for line in lines) for lines in (steps[:4], steps[-4:]))
    # Rewards deviate by 0.2, so the difference of two means of 256 answers has a standard error of 0.02.
    assert last > first + 0.3
    assert {"entropy", "reward_std", "completions/mean_length"} <= steps[-1].keys()
    assert run.manifest["reward"]["function"] == "alphabet:early"


def test_the_number_of_steps_is_known_before_the_first(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, alphabet: None
) -> None:
    keys = ["dataset=sums", f"model={tiny_model}", *KEYS, "gradient_accumulation=5", "epochs=0.3", "validate_every=99"]
    run = train(workspace, "grpo", keys, lambda line: None)
    prompts = run.manifest["preflight"]["rows"]
    assert run.status()["step"] == run.status()["total_steps"] == -(-3 * -(-prompts // 10) // 10)
    with pytest.raises(UserError, match="a step takes 100 prompts, and sums@v1 has"):
        train(workspace, "grpo", [*keys, "gradient_accumulation=50"], lambda line: None)


def test_a_reward_is_called_with_conversations_and_texts() -> None:
    seen = []

    def reward(prompts: list, answers: list) -> list[float]:
        seen.append((prompts, answers))
        return [1.0] * len(answers)

    prompts = [[{"role": "user", "content": "?"}]]
    said = of_conversations(reward)(prompts, [[{"role": "assistant", "content": "yes"}]], completion_ids=[[1]])
    assert said == [1.0]
    assert seen == [(prompts, ["yes"])]
