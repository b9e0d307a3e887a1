"""Run folders: recipe, manifest, metrics, checkpoints and the trained weights of one training run."""

import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from feedback.errors import UserError
from feedback.files import hash_folder, write_atomic
from feedback.lock import is_held
from feedback.workspace import Workspace
from training import queueing
from training.config import Recipe, parse_recipe
from training.recipe import METHODS
from training.recipe_base import Head

MANIFEST = "manifest.json"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
KEPT_CHECKPOINTS = 2
# States of a run that a process has in hand.
ACTIVE = ("queued", "running")


@dataclass(frozen=True)
class Run:
    """One training run, by its folder."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def tuning(self) -> str:
        """lora or full; runs of an earlier veritune were all LoRA."""
        return self.manifest["recipe"].get("tuning", "lora")

    @property
    def weights(self) -> Path:
        """The folder of what was trained, with the tokenizer."""
        return self.folder / ("model" if self.tuning == "full" else "adapter")

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / MANIFEST).read_text())

    @property
    def origin(self) -> dict[str, str]:
        """Name and hash of the base at the beginning of its chain of runs."""
        parent = self.manifest["parent"]
        before = Run(self.folder.parent / parent["run_id"]) if parent else None
        return before.origin if before and before.folder.is_dir() else self.manifest["model"]

    @property
    def recipe(self) -> Recipe:
        path = self.folder / "recipe.yaml"
        return parse_recipe(yaml.safe_load(path.read_text()), str(path))

    @property
    def head(self) -> Head:
        return METHODS[self.manifest["method"]].head

    @property
    def labels(self) -> tuple[str, ...]:
        """What a classifier tells apart, in the order of its outputs."""
        names = json.loads((self.weights / "config.json").read_text())["id2label"]
        return tuple(names[place] for place in sorted(names, key=int))

    def require_answers(self) -> None:
        """Make sure that the run's model writes answers.

        Raises:
            UserError: it gives scores or labels.
        """
        if self.head != "causal-lm":
            raise UserError(f"run {self.id}: a {self.manifest['method']} model, which judges answers and writes none")

    def begin(self, recipe: Recipe, manifest: Mapping[str, Any]) -> None:
        """Write what a run must have to be one."""
        (self.folder / "checkpoints").mkdir()
        write_atomic(self.folder / "recipe.yaml", yaml.safe_dump(recipe.model_dump(), sort_keys=False))
        text = json.dumps({"run_id": self.id, "method": recipe.method, **manifest}, indent=2, ensure_ascii=False)
        write_atomic(self.folder / MANIFEST, text + "\n")

    def update(self, **entries: Any) -> None:
        """Change entries of the manifest, whole or not at all."""
        text = json.dumps(self.manifest | entries, indent=2, ensure_ascii=False)
        write_atomic(self.folder / MANIFEST, text + "\n")

    @property
    def metrics_file(self) -> Path:
        """A line of JSON for each that was logged: `step` and figures, or `step`, `alarm` and `message`."""
        return self.folder / "metrics.jsonl"

    def metrics(self) -> list[dict[str, Any]]:
        """What was logged, in order of steps; a line cut short by a crash is left out."""
        path = self.metrics_file
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def sync_metrics(self) -> None:
        """Force what was logged to disk."""
        with self.metrics_file.open("a") as file:
            os.fsync(file.fileno())

    def forget_metrics_after(self, step: int) -> None:
        """Drop the lines that a resumed run is going to write again."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        write_atomic(self.metrics_file, "".join(json.dumps(line) + "\n" for line in kept))

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first; they are renamed into place when complete."""
        folders = [path for path in (self.folder / "checkpoints").glob("*") if CHECKPOINT.fullmatch(path.name)]
        return sorted(folders, key=step_of)

    @property
    def last_whole(self) -> str:
        """Where a resumed run goes on, in words."""
        checkpoints = self.checkpoints()
        return checkpoints[-1].name if checkpoints else "its beginning"

    def checkpoint(self, step: int) -> Path:
        """The checkpoint of a step."""
        return self.folder / "checkpoints" / f"checkpoint-{step}"

    def rotate_checkpoints(self, spared: Collection[int] = ()) -> None:
        """Remove all checkpoints but the newest and those of some steps."""
        for path in self.checkpoints()[:-KEPT_CHECKPOINTS]:
            if step_of(path) not in spared:
                _remove(path)
        self.remove_parts()

    def remove_parts(self) -> None:
        """Remove what a crash left half-written or half-removed."""
        for path in [*self.folder.glob(".*.part"), *self.folder.glob("checkpoints/.*.part")]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def forget_checkpoints_from(self, step: int) -> None:
        """Remove the checkpoints that whatever began at a step may have spoilt."""
        for path in self.checkpoints():
            if step_of(path) >= step:
                _remove(path)

    @property
    def log(self) -> Path:
        """What the run reported, and what libraries logged meanwhile."""
        return self.folder / "log.txt"

    @property
    def lock(self) -> Path:
        """Held by the process that works on the run, which says in it who it is."""
        return self.folder / "lock"

    @property
    def state(self) -> str:
        """queued, running, finished, failed, stopped (by the user) or interrupted (its process is gone)."""
        state: str = self.manifest["state"]
        if state in ACTIVE and not is_held(self.lock):
            # It may have come to its end between the two looks.
            state = self.manifest["state"]
            return "interrupted" if state in ACTIVE else state
        return state

    @property
    def active(self) -> bool:
        """Whether a process is at work on it, or waits for its turn to be."""
        return self.state in ACTIVE

    @property
    def waits_for(self) -> list[str]:
        """The runs before this one in the queue, by id, or by folder where they are another workspace's."""
        before = queueing.waits_for(self.lock)
        return [folder.name if folder.parent == self.folder.parent else str(folder) for folder in before]

    @property
    def place(self) -> str:
        """Its place in the queue, in words."""
        before = self.waits_for
        return f", position {len(before)}, behind {', '.join(before)}" if before else ""

    def status(self) -> dict[str, Any]:
        """What `train status --json` prints."""
        manifest, metrics = self.manifest, self.metrics()
        latest: dict[str, Any] = {}
        for line in metrics:
            latest |= {key: value for key, value in line.items() if key not in ("alarm", "message")}
        return {
            "run_id": self.id,
            "state": self.state,
            "waits_for": self.waits_for,
            "method": manifest["method"],
            "step": latest.pop("step", 0),
            "total_steps": manifest["total_steps"],
            "metrics": latest,
            "alarms": [line for line in metrics if "alarm" in line],
            "dataset": manifest["dataset"]["id"],
            "parent": manifest["parent"]["run_id"] if manifest["parent"] else None,
            "error": manifest.get("error"),
        }

    def verify_weights(self) -> None:
        """Compare the trained weights' bytes with the manifest.

        Raises:
            UserError: the run has no weights yet, or their bytes were altered.
        """
        expected = self.manifest.get("weights")
        if expected is None:
            raise UserError(f"run {self.id}: {self.state}, so it has no weights yet; `veritune train resume {self.id}`")
        if hash_folder(self.weights) != expected:
            raise UserError(f"run {self.id}: the files in {self.weights} no longer match its manifest; train it again")


def _remove(checkpoint: Path) -> None:
    # Killed at this, it must not be left in parts under the name of a whole one.
    going = checkpoint.with_name(f".{checkpoint.name}.part")
    os.rename(checkpoint, going)
    shutil.rmtree(going)


def step_of(checkpoint: Path) -> int:
    """The optimiser steps that a checkpoint comes after."""
    return int(checkpoint.name.split("-")[1])


def create(workspace: Workspace, method: str) -> Run:
    """Make the folder of a new run, numbered within its method; `begin` makes it a run."""
    number = max(
        (int(run.id.split("-")[-1]) for run in list_runs(workspace) if run.id.startswith(f"{method}-")), default=0
    )
    while True:
        number += 1
        run = Run(workspace.runs / f"{method}-{number}")
        try:
            run.folder.mkdir(parents=True)
            return run
        except FileExistsError:
            continue


def find(workspace: Workspace, run_id: str) -> Run:
    """The run of that id.

    Raises:
        UserError: there is none.
    """
    for run in list_runs(workspace):
        if run.id == run_id:
            return run
    names = ", ".join(run.id for run in list_runs(workspace)) or "none yet"
    raise UserError(f"run {run_id!r}: not in this workspace, which has {names}")


def list_runs(workspace: Workspace) -> list[Run]:
    """All runs, oldest first."""
    runs = [Run(path.parent) for path in workspace.runs.glob(f"*/{MANIFEST}")]
    return sorted(runs, key=lambda run: run.manifest["created_at"])
