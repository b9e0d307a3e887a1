"""What every method's trainer shares: whole checkpoints, metrics.jsonl, schedule, and a check of the first step."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainingArguments

from feedback.files import sync_folder, sync_tree
from training import alarms, early_stopping, means, models, preflight, schedules, sharding, trackers
from training.batches import first_sequence
from training.callbacks import EarlyStopping, Metrics, Report, StopWhereWhole
from training.disk import written
from training.errors import TrainingError
from training.layers import Layer, discriminate, hold_back, trained_layers
from training.models import checksums, local
from training.recipe_base import Recipe
from training.runs import Run, step_of

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState


def arguments(recipe: Recipe, run: Run) -> dict[str, Any]:
    """The entries of TRL's configs that do not depend on the method."""
    return {
        "output_dir": str(run.folder / "checkpoints"),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "optim": means.OPTIMIZERS[means.optimizer(recipe)],
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.max_steps or -1,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        # A frozen base is loaded in bf16; weights that train stay fp32, and only their forward pass is bf16.
        "bf16": recipe.tuning == "full" and models.computes_in_bf16(recipe.precision),
        # Not the default, and without it several processes on a CPU each train alone.
        "use_cpu": not torch.cuda.is_available(),
        "ddp_find_unused_parameters": False,
        # Rather than 30 minutes, after which nobody thinks of a lost host any more.
        "ddp_timeout": 600,
        "save_strategy": "steps",
        "save_steps": recipe.checkpoint_every,
        "logging_steps": recipe.log_every,
        "logging_nan_inf_filter": False,
        # Once an epoch is put as a number of steps when that is known, so that what is due at a step is written before
        # its checkpoint, and a resumed run has nothing to make up for.
        "eval_strategy": "steps",
        "eval_steps": recipe.validate_every or 1,
        "logging_first_step": True,
        "report_to": recipe.tracker,
        "run_name": run.id,
        "project": trackers.PROJECT,
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "max_length": None,
    } | sharding.arguments(recipe)


def _is_last(checkpoint: Path) -> bool:
    """Whether a run had nothing left to train after this checkpoint."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return bool(state["global_step"] >= state["max_steps"])


def without_base_dropout(model: torch.nn.Module) -> None:
    """Leave the adapter's dropout alone of all: preferences are compared between what the base always says."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" not in name:
            module.p = 0.0


class RunTrainer:
    """Mixed into TRL's trainers, before them."""

    run: Run
    recipe: Recipe
    layers: list[Layer]
    # What a person at the screen is told of each step.
    told: tuple[str, ...] = ("loss",)

    def attach(self, run: Run, recipe: Recipe, report: Report) -> None:
        """Bind the trainer to its run folder, once it is constructed."""
        self.run, self.recipe = run, recipe
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        if recipe.validate_every is None:
            rows_in_a_step = recipe.rows_per_step * self.args.world_size
            self.args.eval_steps = -(-len(self.train_dataset) // rows_in_a_step)
        rows = [self.train_dataset[row] for row in range(min(recipe.batch_size, len(self.train_dataset)))]
        preflight.check_supervision(self.data_collator, rows, self.processing_class.eos_token_id)
        self._staging = run.folder / "checkpoints"
        self.metrics = Metrics(run, recipe, report, self.told)
        self.add_callback(self.metrics)
        self.add_callback(StopWhereWhole())
        if recipe.early_stopping:
            self.add_callback(EarlyStopping(self.metrics))
        if recipe.gradual_unfreezing or recipe.discriminative != 1:
            self.layers = trained_layers(self.model)
        self.add_callback(FirstStep(self))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(model)  # type: ignore[misc]
        if self.recipe.discriminative != 1:
            discriminate(optimizer, self.layers, self.recipe.learning_rate, self.recipe.discriminative)
        return optimizer

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if self.recipe.gradual_unfreezing:
            hold_back(self.layers, self.state.epoch or 0)
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, schedules.factor(self.recipe, num_training_steps))
        return self.lr_scheduler

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL writes one into every checkpoint; ours is written once, with the lineage."""

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # The parent writes file by file into what _get_output_dir says; only a whole checkpoint gets its name.
        self._staging = self.run.folder / "checkpoints" / f".{self.state.global_step}.part"
        target = self.run.checkpoint(self.state.global_step)
        if self.is_world_process_zero():
            shutil.rmtree(self._staging, ignore_errors=True)
        # Every process adds its own random state.
        self.accelerator.wait_for_everyone()
        try:
            with written(self.run, target.name):
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
                self.accelerator.wait_for_everyone()
                if self.is_world_process_zero():
                    sync_tree(self._staging)
                    self.run.sync_metrics()
                    os.rename(self._staging / target.name, target)
                    sync_folder(target.parent)
                    self.run.rotate_checkpoints(self._spared())
        except BaseException:
            shutil.rmtree(self._staging, ignore_errors=True)
            raise
        self.accelerator.wait_for_everyone()

    def _spared(self) -> set[int]:
        """The steps of checkpoints that a run which is found to diverge, or stops early, goes back to."""
        lines, steps = self.metrics.lines, [step_of(path) for path in self.run.checkpoints()]
        sound = [step for step in steps if step < alarms.sound_until(lines)]
        best = early_stopping.best(lines, self.recipe) if self.recipe.early_stopping else None
        return {*sound[-1:], *([best.step] if best else [])}

    def train_from(self, checkpoint: Path | None) -> None:
        """Train, going on from a checkpoint where there is one; with early stopping, what is left is the best."""
        lines = self.metrics.lines
        if checkpoint is not None:
            counted = [line["num_tokens"] for line in lines if "num_tokens" in line]
            self._total_train_tokens = counted[-1] if counted else 0
        if checkpoint is not None and (_is_last(checkpoint) or early_stopping.is_over(lines, self.recipe)):
            # Asked to train on from its last step, transformers takes one more.
            self._load_from_checkpoint(str(checkpoint))
        else:
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if any(not local(p).isfinite().all() for p in self.model.parameters() if p.requires_grad):
            raise TrainingError(
                "the last step made weights that are no numbers; try a lower learning_rate than "
                f"{self.recipe.learning_rate:g}"
            )
        best = early_stopping.best(lines, self.recipe)
        if self.recipe.early_stopping and best is not None:
            self._load_from_checkpoint(str(self.run.checkpoint(best.step)))
            self.metrics.report(
                f"taken: step {best.step}, whose {best.metric} on the validation split, {best.value:.4g}, was the best"
                + (f"; {best.since} validations since brought no better" if best.since else "")
            )
            if self.is_world_process_zero():
                self.run.update(best=best._asdict() | {"split": "validation"})

    if TYPE_CHECKING:
        optimizer: torch.optim.Optimizer
        state: TrainerState
        args: TrainingArguments
        model: Any
        train_dataset: Any
        processing_class: Any
        data_collator: Callable[..., Any]
        accelerator: Any

        def _load_from_checkpoint(self, resume_from_checkpoint: str) -> None: ...
        def is_world_process_zero(self) -> bool: ...
        def add_callback(self, callback: Any) -> None: ...
        def remove_callback(self, callback: Any) -> None: ...
        def train(self, resume_from_checkpoint: str | None) -> Any: ...


class FirstStep(TrainerCallback):
    """After the first step all that trains must have moved, and the answers with it, and the rest not a single bit."""

    def __init__(self, trainer: RunTrainer) -> None:
        self.trainer = trainer
        self.first: int | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: "TrainerState", control: "TrainerControl", **_: Any
    ) -> None:
        self.first = state.global_step + 1
        if self.first <= state.max_steps:
            self.logits, self.before = self._logits(), checksums(self.trainer.model)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: "TrainerState", control: "TrainerControl", **_: Any
    ) -> None:
        if state.global_step + 1 == self.first:
            rates = {id(p): group["lr"] for group in self.trainer.optimizer.param_groups for p in group["params"]}
            # A gradient of zero moves nothing (LoRA's A while B is zero), nor does a step below the precision.
            self.moving = {
                name
                for name, p in self.trainer.model.named_parameters()
                if p.grad is not None and local(p.grad).any() and _finest(p) < rates.get(id(p), math.inf)
            }

    def on_step_end(self, args: TrainingArguments, state: "TrainerState", control: "TrainerControl", **_: Any) -> None:
        if state.global_step != self.first:
            return
        if torch.equal(self._logits(), self.logits):
            raise TrainingError(
                "the first step left the model's answers as they were: the adapter is not in effect, or the "
                f"learning_rate {args.learning_rate:g} is too small for its precision"
            )
        trained = {name for name, p in self.trainer.model.named_parameters() if p.requires_grad}
        after = checksums(self.trainer.model)
        changed = {name for name, value in self.before.items() if after[name] != value}
        if altered := sorted(changed - trained):
            raise TrainingError(f"the first step altered the frozen {altered[0]}; this is a fault of veritune")
        if still := sorted(self.moving - changed):
            raise TrainingError(
                f"the first step left {len(still)} of {len(trained)} weights that train as they were, {still[0]} "
                "for one; this is a fault of veritune"
            )
        del self.logits, self.before
        if state.is_world_process_zero:
            run = self.trainer.run
            run.update(preflight=(run.manifest.get("preflight") or {}) | {"first_step": "passed"})

    @torch.no_grad()
    def _logits(self) -> torch.Tensor:
        row = self.trainer.train_dataset[0]
        model = self.trainer.model
        was_training = model.training
        model.eval()
        logits = model(input_ids=torch.tensor([first_sequence(row)], device=model.device), use_cache=False).logits
        model.train(was_training)
        return logits


def _finest(parameter: torch.Tensor) -> float:
    """The smallest step that a weight of this parameter can make."""
    return torch.finfo(parameter.dtype).eps * float(local(parameter.detach()).abs().min())
