"""What happens beside the steps of every method's trainer: lines of metrics, words to the person, and the end."""

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainingArguments

from training import alarms, distributed, early_stopping, stopping
from training.disk import written
from training.errors import Stopped, TrainingError
from training.recipe_base import Recipe
from training.runs import Run

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState

Report = Callable[[str], None]


class Metrics(TrainerCallback):
    """Writes metrics.jsonl, tells the person at the screen how far it is, and raises alarms.

    What it knows, `lines`, is all that was written since the run began, before and after a resume.
    """

    def __init__(self, run: Run, recipe: Recipe, report: Report, names: tuple[str, ...]) -> None:
        self.run, self.recipe, self.report = run, recipe, report
        self.names = names
        self.lines = run.metrics()
        self.began: tuple[float, int] | None = None
        self.told = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: "TrainerState", control: "TrainerControl", **_: Any
    ) -> None:
        self.began = (time.monotonic(), state.global_step)

    def on_step_end(self, args: TrainingArguments, state: "TrainerState", control: "TrainerControl", **_: Any) -> None:
        # A line that averages over steps on both sides of a checkpoint could not be written again after a resume.
        if control.should_save or control.should_evaluate or state.global_step == state.max_steps:
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: "TrainerState",
        control: "TrainerControl",
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "train_runtime" in logs:
            return
        self._write({"step": state.global_step, **logs}, state)
        for alarm, message in alarms.raised(self.lines, self.recipe):
            self._write({"step": state.global_step, "alarm": alarm.name, "message": message}, state)
            if alarm.fatal:
                self._end(f"{alarm.name}: {message}", state)
            self.report(f"alarm {alarm.name}, step {state.global_step}: {message}")
        loss, now = logs.get("loss"), time.monotonic()
        if loss is not None and (now - self.told > 3 or state.global_step == state.max_steps):
            self.told = now
            began, first = self.began or (now, 0)
            left = (now - began) / max(1, state.global_step - first) * (state.max_steps - state.global_step)
            figures = "".join(f", {name} {logs[name]:.4f}" for name in self.names)
            self.report(f"step {state.global_step}/{state.max_steps}{figures}, about {left:.0f} s left")

    def _write(self, line: dict[str, Any], state: "TrainerState") -> None:
        self.lines.append(line)
        if state.is_world_process_zero:
            with written(self.run, "metrics.jsonl"), self.run.metrics_file.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _end(self, why: str, state: "TrainerState") -> None:
        if state.is_world_process_zero:
            self.run.forget_checkpoints_from(alarms.sound_until(self.lines))
        kept = self.run.checkpoints()
        what = f"{kept[-1].name}, from before, is kept" if kept else "no checkpoint was saved before it began"
        raise TrainingError(f"{why}; {what}")


class EarlyStopping(TrainerCallback):
    """Saves where a validation was the best so far, and ends the run when too many were not."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def on_evaluate(self, args: TrainingArguments, state: "TrainerState", control: "TrainerControl", **_: Any) -> None:
        lines, recipe = self.metrics.lines, self.metrics.recipe
        best = early_stopping.best(lines, recipe)
        control.should_save |= best is not None and best.step == state.global_step
        control.should_training_stop |= early_stopping.is_over(lines, recipe)


class StopWhereWhole(TrainerCallback):
    """Ends a run that was asked to end, with a checkpoint of a step that is logged anyway.

    So the run that goes on from there logs the same lines as if it had never been stopped.
    """

    def __init__(self) -> None:
        self.ends = False

    def on_step_end(self, args: TrainingArguments, state: "TrainerState", control: "TrainerControl", **_: Any) -> None:
        # A signal reaches the processes of a run at different steps: they agree on one.
        if control.should_log and distributed.anywhere(stopping.requested()):
            control.should_save = self.ends = True

    def on_save(self, args: TrainingArguments, state: "TrainerState", control: "TrainerControl", **_: Any) -> None:
        if self.ends and state.global_step < state.max_steps:
            raise Stopped
