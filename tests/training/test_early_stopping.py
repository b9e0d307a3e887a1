"""A run that gets no better on the validation split ends, and what it leaves is the best it was."""

import math
from pathlib import Path

import pytest

from feedback.errors import UserError
from feedback.files import hash_folder
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from tests.training import processes
from tests.training.processes import at_step, in_process, until
from training import early_stopping, launch
from training.recipe import METHODS
from training.runs import Run


def lines(*losses: float) -> list[dict[str, float]]:
    return [{"step": 10 * i + 10, "eval_loss": loss} for i, loss in enumerate(losses)]


def test_the_best_is_the_first_of_the_lowest() -> None:
    recipe = METHODS["sft"].model_validate({"method": "sft", "dataset": "d", "early_stopping": 2})
    assert early_stopping.best([{"step": 5, "loss": 0.1}], recipe) is None
    assert early_stopping.best(lines(3, 2, 2, math.nan), recipe) == (20, "eval_loss", 2, 2)
    assert early_stopping.best(lines(math.nan, 3), recipe) == (20, "eval_loss", 3, 0)
    assert [early_stopping.is_over(lines(*(3, 2, 2.5, 2)[:n]), recipe) for n in range(5)] == [False] * 4 + [True]
    never = recipe.model_copy(update={"early_stopping": None})
    assert not early_stopping.is_over(lines(1, 2, 3, 4, 5, 6), never)


@pytest.fixture
def keys(small_dataset: DatasetVersion, tiny_model: Path) -> list[str]:
    # 46 rows many times over, and fast: soon they are known by heart and others are answered worse.
    rows = ["dataset=sums", f"model={tiny_model}", "batch_size=16", "epochs=100", "learning_rate=2e-2", "tuning=full"]
    return [*rows, "log_every=5", "checkpoint_every=1000", "early_stopping=3", "validate_every=4"]


def test_a_run_ends_early_with_its_best_checkpoint(workspace: Workspace, keys: list[str]) -> None:
    said: list[str] = []
    run = launch.train(workspace, "sft", keys, said.append)
    losses = {line["step"]: line["eval_loss"] for line in run.metrics() if "eval_loss" in line}
    best = min(losses, key=lambda step: losses[step])
    status = run.status()
    assert run.state == "finished"
    assert max(losses) == status["step"] == best + 3 * 4 < status["total_steps"]
    assert run.manifest["best"] == {
        "step": best, "metric": "eval_loss", "value": losses[best], "since": 3, "split": "validation"
    }  # fmt: skip
    (line,) = [line for line in said if line.startswith("taken")]
    assert line.startswith(
        f"taken: step {best}, whose eval_loss on the validation split, {losses[best]:.4g}, was the best"
    )
    weights = "model.safetensors"
    assert hash_folder(run.weights)[weights] == hash_folder(run.checkpoint(best))[weights]


def test_a_run_killed_before_its_early_end_comes_to_the_same(workspace: Workspace, keys: list[str]) -> None:
    whole = launch.train(workspace, "sft", keys, print)
    run = Run(workspace.runs / "sft-2")
    process = in_process(processes.train, workspace.root, "sft", keys)
    until(lambda: at_step(run, whole.manifest["best"]["step"] + 5), process)
    process.kill()
    process.join()
    assert run.state == "interrupted"
    launch.resume(workspace, run.id, print)
    assert run.manifest["best"] == whole.manifest["best"]
    assert hash_folder(run.weights) == hash_folder(whole.weights)


def test_without_a_validation_split_it_is_refused(workspace: Workspace, keys: list[str]) -> None:
    from feedback.curation.build import build

    build(workspace, "all", ["sums"], fractions=(1, 0, 0))
    with pytest.raises(UserError, match="early_stopping: the validation split of dataset all@v1 has no row for sft"):
        launch.train(workspace, "sft", ["dataset=all", *keys[1:]], print)
