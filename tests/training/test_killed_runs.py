"""kill -9, wherever it strikes: what goes on from there ends as if nothing had happened.

tests/benchmarks/kills.py does it twenty times a method, at random.
"""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import UserError
from feedback.files import hash_folder
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from tests.training import processes
from tests.training.processes import in_process
from training.launch import resume, train
from training.runs import Run

TIMELESS = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "step_time", "eval_step_time")
CHECKPOINT = r"os.rename \S+\.part/checkpoint-\d+ \S+"
ROTATION = r"os.rename \S+/checkpoint-\d+ \S+\.part"
INSIDE = r"open \S+\.part/checkpoint-\d+/\S+"
METRICS = r"open \S+/metrics\.jsonl"
WEIGHTS = r"os.rename \S+\.part \S+/adapter"
CARD = r"open \S+MODEL_CARD\S+"
LAST_WORDS = r"MODEL_CARD.*os.rename \S+\.part \S+/manifest\.json"
ULMFIT = ["tuning=full", "schedule=slanted-triangular", "discriminative=2.6", "gradual_unfreezing=true"]
REWARD = "reward=tests.training.test_killed_runs:early"
PARENT = ["parent=sft-1", "lora.dropout=0"]
PPO = [REWARD, "rollouts=8", "max_new_tokens=4", "ptx_weight=0.1", *PARENT]
GRPO = [REWARD, "generations=4", "max_new_tokens=4", *PARENT]
# By their names the keys of each that is killed.
CASES: dict[str, tuple[str, list[str]]] = {
    "sft": ("sft", []),
    "ulmfit": ("sft", ULMFIT),
    "reward": ("reward", []),
    "dpo": ("dpo", []),
    "kto": ("kto", []),
    "orpo": ("orpo", []),
    "classifier": ("classifier", []),
    "ppo": ("ppo", PPO),
    "grpo": ("grpo", GRPO),
}
KEYS = ["dataset=sums", "max_steps=8", "batch_size=4", "lora.dropout=0.1"]
KEYS += ["log_every=2", "checkpoint_every=3", "learning_rate=1e-3"]


def quiet(line: str) -> None:
    pass


def early(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """How many characters stand early in the alphabet."""
    return [float(sum(character < "n" for character in answer)) for answer in answers]


def logged(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in TIMELESS} for line in run.metrics()]


@pytest.fixture
def keys(small_dataset: DatasetVersion, tiny_model: Path) -> list[str]:
    return [*KEYS, f"model={tiny_model}"]


def killed(workspace: Workspace, method: str, keys: Sequence[str], pattern: str, times: int, number: int) -> Run:
    run = Run(workspace.runs / f"{method}-{number}")
    process = in_process(processes.dying, workspace.root, method, keys, pattern, times)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert run.state == "interrupted"
    return run


def keys_of(workspace: Workspace, case: str, model: Path, bert: Path) -> tuple[str, list[str]]:
    """Method and keys of a case, whose parent there is."""
    method, more = CASES[case]
    # An encoder has dropout of its own, whose random numbers must go on as well.
    keys = [*KEYS, f"model={bert if method == 'classifier' else model}", *more]
    if PARENT[0] in more:
        train(workspace, "sft", [*KEYS, f"model={model}", "max_steps=2", "lora.dropout=0"], quiet)
    return method, keys


@pytest.mark.parametrize("case", CASES)
def test_every_method_goes_on_as_if_it_had_not_been_killed(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, tiny_bert: Path, case: str
) -> None:
    method, keys = keys_of(workspace, case, tiny_model, tiny_bert)
    whole = train(workspace, method, keys, quiet)
    run = killed(workspace, method, keys, CHECKPOINT, 2, 2)
    assert [path.name for path in run.checkpoints()] == ["checkpoint-3"]
    resume(workspace, run.id, quiet)
    assert run.state == "finished"
    assert logged(run) == logged(whole)
    assert hash_folder(run.weights) == hash_folder(whole.weights)


@pytest.mark.parametrize(
    ("pattern", "times", "last"),
    [
        (INSIDE, 4, "its beginning"),
        (INSIDE, 9, "checkpoint-3"),
        (METRICS, 6, "checkpoint-3"),
        (ROTATION, 1, "checkpoint-8"),
        (WEIGHTS, 1, "checkpoint-8"),
        (CARD, 1, "checkpoint-8"),
        (LAST_WORDS, 1, "checkpoint-8"),
    ],
    ids="first-save later-save metrics rotation weights card last-words".split(),
)
def test_the_moments_that_matter(workspace: Workspace, keys: list[str], pattern: str, times: int, last: str) -> None:
    whole = train(workspace, "sft", keys, quiet)
    run = killed(workspace, "sft", keys, pattern, times, 2)
    assert run.last_whole == last
    assert all((path / "trainer_state.json").exists() for path in run.checkpoints())
    resume(workspace, run.id, quiet)
    assert (run.state, logged(run)) == ("finished", logged(whole))
    assert hash_folder(run.weights) == hash_folder(whole.weights)
    assert not list(run.folder.rglob("*.part"))
    with pytest.raises(UserError, match="finished; only a run that ended before its end can be resumed"):
        resume(workspace, run.id, quiet)
