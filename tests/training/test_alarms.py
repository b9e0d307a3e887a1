"""Each alarm goes off on the fault that it is for, at once and once, and stays quiet on runs that are well."""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import alarms
from training.errors import TrainingError
from training.launch import train
from training.recipe import METHODS
from training.recipe_base import Recipe
from training.runs import find, step_of
from training.trainer import RunTrainer


def recipe(method: str, **keys: Any) -> Recipe:
    required = {"ppo": {"reward": "reward-1", "parent": "sft-1"}}.get(method, {})
    return METHODS[method].model_validate({"method": method, "dataset": "d", **required, **keys})


def series(count: int, **values: Callable[[int], float]) -> list[dict[str, float]]:
    return [{"step": 5 * i + 5, **{name: value(i) for name, value in values.items()}} for i in range(count)]


def heard(lines: Iterable[dict[str, Any]], told: Recipe) -> dict[str, int]:
    """The alarms that a run of these lines raises, with the number of the line that raised each."""
    seen: list[dict[str, Any]] = []
    names: dict[str, int] = {}
    for number, line in enumerate(lines):
        seen.append(line)
        for alarm, message in alarms.raised(seen, told):
            assert alarm.name not in names
            assert message
            names[alarm.name] = number
            seen.append({"step": line["step"], "alarm": alarm.name, "message": message})
    return names


def noisy(level: Callable[[int], float], spread: float, seed: int = 0) -> Callable[[int], float]:
    return lambda i: level(i) + random.Random(f"{seed} {i}").gauss(0, spread)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "loss",
    [
        noisy(lambda i: 0.4 + 5 * math.exp(-i / 20), 0.3),
        noisy(lambda i: 2.0, 0.8),
        lambda i: 0.02 if i % 7 else 3.5,
        lambda i: 0.2 if i == 0 or random.Random(i).random() < 0.4 else 2.8,
        lambda i: 0.6931 / (1 + i / 50),
        noisy(lambda i: 25 / (1 + i / 30), 3.0),
    ],
    ids=["falling", "level and noisy", "rare hard batches", "easy and hard rows", "DPO", "large at first"],
)
def test_a_healthy_loss_sets_nothing_off(loss: Callable[[int], float], seed: int) -> None:
    lines = series(400, loss=noisy(loss, 0.05, seed), grad_norm=lambda i: 1.0)
    assert heard(lines, recipe("sft")) == {}
    assert alarms.sound_until(lines) >= lines[-20]["step"]


@pytest.mark.parametrize(
    ("loss", "line"),
    [
        (lambda i: 5.5 if i == 0 else 40 + 10 * math.sin(i), 3),
        (lambda i: 2.0 - i / 100 if i < 50 else 12.0, 52),
        (lambda i: 0.69 if i < 20 else 2.5 * (i - 18), 22),
        (lambda i: 1.3 if i < 12 else 2.1, 21),
    ],
    ids=["from the first step", "in the middle", "slowly", "to what knows nothing any more"],
)
def test_divergence(loss: Callable[[int], float], line: int) -> None:
    lines = series(line + 1, loss=noisy(loss, 0.01))
    assert heard(lines, recipe("sft")) == {"divergence": line}
    # While it is only suspected, what was saved before it may have begun is already known.
    last = max(number for number, each in enumerate(lines) if each["loss"] < 1.1 * lines[0]["loss"])
    assert alarms.sound_until(lines[:-1]) == alarms.sound_until(lines) <= lines[last]["step"]
    assert alarms.sound_until(lines) > lines[last]["step"] - 5 * 5


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan(value: float) -> None:
    lines = series(4, loss=lambda i: value if i == 3 else 1.0)
    assert heard(lines, recipe("sft")) == {"nan": 3}
    assert alarms.sound_until(lines) == lines[2]["step"]
    gradient = series(4, loss=lambda i: 1.0, grad_norm=lambda i: value if i == 3 else 1.0)
    assert heard(gradient, recipe("dpo")) == {"nan": 3}


def test_what_must_not_go_on_is_fatal() -> None:
    assert [alarm.name for alarm in alarms.ALARMS if alarm.fatal] == ["nan", "divergence"]


def test_chosen_falling() -> None:
    def run(moved: Callable[[int], float], reference: float) -> list[dict[str, float]]:
        return series(
            60, **{"rewards/chosen": lambda i: 0.1 * moved(i), "logps/chosen": lambda i: reference + moved(i)}
        )

    assert heard(run(lambda i: -i / 4, -40), recipe("dpo", beta=0.1)) == {"chosen-falling": 21}
    # As far, but of answers so long that it is less than a tenth; upwards; and by less than a nat.
    assert heard(run(lambda i: -i / 4, -400), recipe("dpo", beta=0.1)) == {}
    assert heard(run(lambda i: i / 4, -40), recipe("dpo", beta=0.1)) == {}
    assert heard(run(lambda i: -i / 100, -2), recipe("dpo", beta=0.1)) == {}


def test_no_better_than_length() -> None:
    def run(accuracy: float, epoch: float) -> list[dict[str, float]]:
        judged = {"eval_accuracy": accuracy, "eval_accuracy_low": accuracy - 0.1, "eval_accuracy_high": accuracy + 0.1}
        return [{"step": 9, "epoch": epoch, "eval_n": 50, "eval_length_accuracy": 0.62, **judged}]

    told = recipe("reward")
    assert heard(run(0.6, 1.0), told) == {"no-better-than-length": 0}
    assert heard(run(0.6, 0.4), told) == {}
    assert heard(run(0.7, 1.0), told) == {}


def test_a_learning_rate_of_1_ends_a_run_and_the_last_sound_checkpoint_stays(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, veritune: Callable[..., Any]
) -> None:
    """A model that knows the sums' form loses it; the rate rises slowly, so that something sound is saved before."""
    common = ["--workspace", workspace.root, "train", "sft", "dataset=sums"]
    learnt = ["tuning=full", "learning_rate=1e-2", "max_steps=60"]
    assert veritune(*common, f"model={tiny_model}", *learnt).status == 0
    planted = ["learning_rate=1", "max_steps=1000", "warmup=0.9", "log_every=1", "checkpoint_every=2"]
    ended = veritune(*common, "parent=sft-1", *planted)
    run = find(workspace, "sft-2")
    (raised,) = run.status()["alarms"]
    assert (ended.status, run.state, raised["alarm"]) == (1, "failed", "divergence")
    assert ended.lines[-1] == f"failed: {run.manifest['error']}"
    assert f"training diverges; start anew with a lower learning_rate than 1; {run.last_whole}, from" in ended.err
    assert "training diverges" in veritune("--workspace", workspace.root, "train", "status", "sft-2").out
    assert not run.weights.exists()
    losses = {line["step"]: line["loss"] for line in run.metrics() if "loss" in line}
    kept = step_of(run.checkpoints()[-1])
    # What its weights cost, at the step after it, is nearer to what the run began with than to what it came to.
    assert losses[kept + 1] < (losses[1] + losses[max(losses)]) / 2


def test_weights_that_became_no_numbers_are_not_what_is_kept(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of the step that spoilt them is written before any loss shows it."""

    class Poison(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step == 6:
                next(p for p in model.parameters() if p.requires_grad).data.fill_(math.nan)

    attach = RunTrainer.attach

    def planted(self: RunTrainer, *arguments: Any) -> None:
        attach(self, *arguments)
        self.add_callback(Poison())

    monkeypatch.setattr(RunTrainer, "attach", planted)
    keys = ["dataset=sums", f"model={tiny_model}", "max_steps=20", "log_every=1", "checkpoint_every=2"]
    with pytest.raises(TrainingError, match=r"the loss became nan at step 7.*; checkpoint-4, from before, is kept"):
        train(workspace, "sft", keys, print)
    run = find(workspace, "sft-1")
    assert [line["alarm"] for line in run.status()["alarms"]] == ["nan"]
    assert [step_of(path) for path in run.checkpoints()] == [4]
    # At the last step there is no later loss to show it.
    with pytest.raises(TrainingError, match="the last step made weights that are no numbers"):
        train(workspace, "sft", [*keys, "max_steps=6"], print)


def longer(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [float(len(answer)) for answer in answers]


def test_a_reward_that_pays_for_length_sets_off_the_alarm(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    """A policy that has learned to end its answers finds out that it is paid for not doing so."""
    common = ["dataset=sums", "log_every=1", "validate_every=99"]
    train(
        workspace, "sft", [*common, f"model={tiny_model}", "tuning=full", "learning_rate=1e-2", "max_steps=40"], print
    )
    ppo = ["parent=sft-1", "reward=tests.training.test_alarms:longer", "rollouts=32", "batch_size=32"]
    ppo += ["max_new_tokens=12", "max_steps=12", "learning_rate=2e-3", "kl_coefficient=0", "missing_eos_penalty=0"]
    lines: list[str] = []
    run = train(workspace, "ppo", [*common, *ppo], lines.append)
    (raised,) = [line for line in run.status()["alarms"] if line["alarm"] == "reward-hacking"]
    assert raised["message"].startswith("the reward rises with longer answers (correlation ")
    assert any(line.startswith(f"alarm reward-hacking, step {raised['step']}: ") for line in lines)
    assert run.state == "finished"


PPO_HEALTHY: dict[str, Callable[[int], float]] = {
    "loss": noisy(lambda i: 0.3, 0.1),
    "reward/mean": noisy(lambda i: i / 30, 0.1, 1),
    "reward/length_correlation": noisy(lambda i: 0.1, 0.15, 2),
    "length/mean": noisy(lambda i: 20, 2, 3),
    "kl": noisy(lambda i: min(6, i / 4), 0.3, 4),
    "entropy": noisy(lambda i: 1.0 - i / 100, 0.05, 5),
}


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({}, set()),
        (
            {
                "length/mean": lambda i: 20 + i / 5,
                "reward/length_correlation": lambda i: 0.6,
            },
            {"reward-hacking"},
        ),
        (
            {
                "length/mean": lambda i: 20 - i / 8,
                "reward/length_correlation": lambda i: -0.1 - i / 150,
            },
            {"reward-hacking"},
        ),
        ({"reward/length_correlation": lambda i: 0.6}, set()),
        ({"length/mean": lambda i: 20 + i}, {"length-growing"}),
        ({"kl": lambda i: i}, {"kl-out-of-band"}),
        ({"kl": lambda i: -i / 5}, {"kl-out-of-band"}),
        ({"entropy": lambda i: math.exp(-i / 10)}, {"entropy-out-of-band"}),
        ({"entropy": lambda i: 1 + i / 10}, {"entropy-out-of-band"}),
    ],
    ids="healthy hacked-by-long hacked-by-short paid-but-level longer KL-high KL-low collapse noise".split(),
)
def test_rollouts(changed: dict[str, Callable[[int], float]], names: set[str]) -> None:
    assert set(heard(series(50, **(PPO_HEALTHY | changed)), recipe("ppo"))) == names
