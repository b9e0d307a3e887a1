"""`train`: from a recipe to a finished run; `resume`: on from the last whole checkpoint."""

import json
import logging
import os
import platform
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version as package_version
from types import MappingProxyType
from typing import Any

from feedback.errors import UserError
from feedback.files import atomic_folder, hash_folder, write_atomic
from feedback.lock import held
from feedback.workspace import Workspace
from training import (
    distributed,
    known,
    memory,
    models,
    quantised,
    queueing,
    runs,
    sharding,
    stopping,
    trackers,
    trainable,
)
from training.config import Recipe, read_recipe
from training.disk import written
from training.distributed import ALONE, Host
from training.prepare import Prepared, Rows, check_memory, encode, prepare
from training.recipe import SFTRecipe
from training.reward_quality import sentence
from training.runs import Run

PACKAGES = ("veritune", "torch", "transformers", "trl", "peft")


Report = Callable[[str], None]


def train(
    workspace: Workspace,
    recipe_name: str,
    overrides: list[str],
    report: Report,
    begun: Callable[[Run], None] = lambda run: None,
    host: Host = ALONE,
) -> Run:
    """Check a recipe, train it to its end when its turn comes, and leave what it trained in the run's folder.

    Args:
        overrides: `key=value`, as on the command line.
        report: takes the lines that a person at the screen reads; the run's log has them too.
        begun: told of the run as soon as there is one.
        host: where other hosts find this one, if the recipe wants any.

    Raises:
        UserError: everything that is wrong with the recipe and what it names, together.
        TrainingError: training had to be stopped.
        Stopped: somebody asked for its end.
    """
    return train_values(workspace, *read_recipe(recipe_name, overrides), report, begun, host)


def train_values(
    workspace: Workspace,
    values: dict[str, Any],
    place: str,
    report: Report,
    begun: Callable[[Run], None] = lambda run: None,
    host: Host = ALONE,
    notes: Mapping[str, Any] = MappingProxyType({}),
) -> Run:
    """Train by the values of a recipe; see `train`.

    Args:
        place: where the values stand, for messages.
        notes: further entries of the manifest.
    """
    prepared = prepare(workspace, values, place)
    rows = encode(prepared)
    if not queueing.in_use(queueing.devices()):
        # What is free now is what it will find when it begins; otherwise only its turn will tell.
        check_memory(prepared, rows)
    run = runs.create(workspace, prepared.recipe.method)
    with stopping.heeded(), _at_work(run):
        run.begin(prepared.recipe, {"state": "queued"} | _first_manifest(prepared) | dict(notes))
        begun(run)
        _execute(workspace, run, prepared, rows, report, host)
    return run


def resume(
    workspace: Workspace,
    run_id: str,
    report: Report,
    begun: Callable[[Run], None] = lambda run: None,
    host: Host = ALONE,
) -> Run:
    """Go on with a run that did not finish; what follows equals what would have followed.

    Raises:
        UserError: it finished, it is at work, or its inputs are no longer what they were.
    """
    run = runs.find(workspace, run_id)
    if run.state == "finished" or run.active:
        raise UserError(f"run {run_id}: {run.state}; only a run that ended before its end can be resumed")
    prepared = prepare(workspace, run.recipe.model_dump(), str(run.folder / "recipe.yaml"))
    manifest, now = run.manifest, _first_manifest(prepared)
    inputs = ("dataset", "model", "parent", "reward", "optimizer", "backend")
    changed = [key for key in inputs if manifest.get(key) != now[key]]
    if changed:
        raise UserError(
            *(f"run {run_id}: its {k} is no longer what it was trained on; start a new run" for k in changed)
        )
    rows = encode(prepared)
    with stopping.heeded(), _at_work(run):
        run.remove_parts()
        run.update(state="queued", preflight=None, error=None)
        begun(run)
        _execute(workspace, run, prepared, rows, report, host)
    return run


def join(workspace: Workspace, run_id: str, host: Host) -> Run:
    """Give a run the processes of another host, until it ends.

    Raises:
        UserError: it does not wait for this host.
        TrainingError: it ended before its end.
    """
    run = runs.find(workspace, run_id)
    if not run.active or not 0 < host.number < run.recipe.nodes:
        raise UserError(
            f"run {run_id}: {run.state}, on {run.recipe.nodes} hosts with the numbers 0 to {run.recipe.nodes - 1}; "
            f"it does not wait for number {host.number}"
        )
    distributed.launch(workspace, run, host, lambda line: None)
    return run


@contextmanager
def _at_work(run: Run) -> Iterator[None]:
    """Hold the run for this process, which says in its lock what others need to know to wait for it or to end it."""
    with written(run, "the run's files"), ExitStack() as stack:
        try:
            file = stack.enter_context(held(run.lock))
        except BlockingIOError:
            raise UserError(f"run {run.id}: another process has just begun to work on it") from None
        file.write(json.dumps({"host": platform.node(), "pid": os.getpid(), "devices": queueing.devices()}) + "\n")
        file.flush()
        yield


def _execute(workspace: Workspace, run: Run, prepared: Prepared, rows: Rows, report: Report, host: Host) -> None:
    with logged(run, report) as tell:
        try:
            with queueing.turn(run.lock, lambda _: tell(f"{run.id} is queued{run.place}")):
                run.update(state="running")
                if distributed.wanted(prepared.recipe) == 1:
                    work(run, prepared, rows, tell)
                else:
                    for command in distributed.join_commands(workspace, run, host):
                        tell(f"on another host: {command}")
                    distributed.launch(workspace, run, host, report)
        except KeyboardInterrupt:
            run.update(state="stopped")
            tell(f"{run.id} stopped; `veritune train resume {run.id}` goes on from {run.last_whole}")
            raise
        except BaseException as error:
            logging.getLogger(__name__).error(traceback.format_exc())
            # On a full disk it shows as interrupted, which is true as well.
            with suppress(OSError):
                run.update(state="failed", error=" ".join(str(error).split())[:1000])
            raise


def work(run: Run, prepared: Prepared, rows: Rows, report: Report) -> None:
    """What each process of a run does; the first one keeps the run's files."""
    from datasets import Dataset

    from training.layers import check_layers

    recipe, tokenizer = prepared.recipe, prepared.tokenizer
    checks = rows.checks | check_memory(prepared, rows)
    method = import_module(f"training.{recipe.method}")
    memory.return_at_once()
    model = trainable.load(prepared)
    trained, parameters = trainable.count(model)
    first = distributed.is_first()
    if first:
        run.update(preflight=checks)
    for line in prepared.means.replaced:
        report(line)
    report(
        f"{run.id}: {checks['rows']} rows of {prepared.version.id}, {trained:,} of {parameters:,} parameters train; "
        f"{checks['truncated']} rows cut at {prepared.max_length} tokens, {checks['dropped_too_long']} left out"
    )
    if words := check_layers(recipe, model):
        report(words)
    report(f"first row, the loss on what stands in ⟦⟧: {checks['example'][:300]!r}")

    if first and isinstance(recipe, SFTRecipe):
        known.ask_once(
            run, recipe, list(method.select_rows(recipe, prepared.version, "train")), prepared, model, report
        )
    trackers.point_at(run)
    validation = Dataset.from_list(rows.validation) if rows.validation else None
    with quantised.full_precision_adapters(model):
        trainer = method.make_trainer(recipe, run, model, tokenizer, Dataset.from_list(rows.train), validation)
    distributed.require_processes(trainer.accelerator, recipe)
    sharding.require(trainer.accelerator, recipe)
    checkpoints = run.checkpoints()
    trainer.accelerator.wait_for_everyone()
    if first:
        run.forget_metrics_after(runs.step_of(checkpoints[-1]) if checkpoints else 0)
        run.update(total_steps=_total_steps(recipe, len(trainer.train_dataset)))
    trainer.accelerator.wait_for_everyone()
    trainer.attach(run, recipe, report)
    stopping.wait_for_a_step()
    trainer.train_from(checkpoints[-1] if checkpoints else None)
    whole = sharding.gathered(trainer)
    if not first:
        return
    with written(run, "the trained weights"):
        if not run.weights.exists():
            with atomic_folder(run.weights) as staging:
                trainable.save(model, staging, whole)
                tokenizer.save_pretrained(str(staging))
        write_atomic(run.folder / "MODEL_CARD.md", _card(run, prepared))
    run.update(state="finished", finished_at=datetime.now(UTC).isoformat(), weights=hash_folder(run.weights))


def _total_steps(recipe: Recipe, rows: int) -> int:
    if recipe.max_steps is not None:
        return recipe.max_steps
    rows_in_a_step = recipe.rows_per_step * distributed.wanted(recipe)
    return -(-int(recipe.epochs * -(-rows // rows_in_a_step) * 1000) // 1000)


def _first_manifest(prepared: Prepared) -> dict[str, Any]:
    parent = prepared.parent
    return {
        "created_at": datetime.now(UTC).isoformat(),
        "command": shlex.join(["veritune", *sys.argv[1:]]),
        "recipe": prepared.recipe.model_dump(),
        "dataset": {"id": prepared.version.id, "fingerprint": prepared.version.fingerprint},
        "model": {"name": prepared.model, "hash": models.model_hash(prepared.model)},
        "parent": {"run_id": parent.id, "weights": parent.manifest["weights"]} if parent else None,
        "reward": prepared.reward,
        **asdict(prepared.means),
        "packages": {name: package_version(name) for name in PACKAGES},
        "hardware": hardware(),
        "total_steps": 0,
    }


def hardware() -> str:
    """The device at hand, in words."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _card(run: Run, prepared: Prepared) -> str:
    recipe, base = prepared.recipe, models.short_name(prepared.model)
    what = {
        "lora": f"A {recipe.method.upper()} adapter (LoRA, rank {recipe.lora.r}) for `{base}`",
        "full": f"All weights of `{base}` after {recipe.method.upper()}",
    }[recipe.tuning]
    return f"""# {run.id}

{what}, trained by veritune
{package_version("veritune")} on the dataset `{prepared.version.id}` (fingerprint `{prepared.version.fingerprint}`)
{f"from what {prepared.parent.id} had trained" if prepared.parent else "from the base model"}.
The recipe stands in recipe.yaml, what was logged in metrics.jsonl.

{_measured(run)}
"""


def _measured(run: Run) -> str:
    if run.head == "causal-lm":
        return f"How it compares with its base is not known from training: `veritune eval {run.id}` measures it."
    validated = [line for line in run.metrics() if "eval_loss" in line]
    said = sentence(validated[-1]) if validated else ""
    return f"At its last validation, {said}." if said else "It was not validated on held-out pairs."


@contextmanager
def logged(run: Run, report: Report) -> Iterator[Report]:
    """Send what libraries log and warn to the run's log.txt as long as it runs; what is reported goes there too."""
    handler = logging.FileHandler(run.log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    # A full disk is noticed where something is lost by it.
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    root, ours = logging.getLogger(), logging.getLogger("run")
    ours.setLevel(logging.INFO)
    root.addHandler(handler)

    def tell(line: str) -> None:
        ours.info(line)
        report(line)

    try:
        yield tell
    finally:
        root.removeHandler(handler)
        handler.close()
