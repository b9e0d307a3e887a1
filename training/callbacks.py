"""What happens beside the steps of every method's trainer: lines of metrics, words to the person, and the end."""

import json
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainingArguments

from training import distributed, stopping
from training.errors import Stopped, TrainingError
from training.runs import Run

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState

Report = Callable[[str], None]


class Metrics(TrainerCallback):
    """Writes metrics.jsonl, tells the person at the screen how far it is, and stops a run that diverged."""

    def __init__(self, run: Run, report: Report, names: tuple[str, ...]) -> None:
        self.path = run.folder / "metrics.jsonl"
        self.report = report
        self.names = names
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
        if state.is_world_process_zero:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")
        loss = logs.get("loss")
        if loss is not None and not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} at step {state.global_step}; the last whole checkpoint is kept; "
                f"try a lower learning_rate than {args.learning_rate:g}"
            )
        now = time.monotonic()
        if loss is not None and (now - self.told > 3 or state.global_step == state.max_steps):
            self.told = now
            began, first = self.began or (now, 0)
            left = (now - began) / max(1, state.global_step - first) * (state.max_steps - state.global_step)
            figures = "".join(f", {name} {logs[name]:.4f}" for name in self.names)
            self.report(f"step {state.global_step}/{state.max_steps}{figures}, about {left:.0f} s left")


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
