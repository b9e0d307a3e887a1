"""Where transformers' own integrations put what a run logs: into the run's folder, or a project of ours."""

import os

from training.runs import Run

PROJECT = "veritune"


def point_at(run: Run) -> None:
    """Set what the integrations read from the environment; what the person has set for wandb wins."""
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run.folder / "tensorboard")
    os.environ.setdefault("WANDB_PROJECT", PROJECT)
    os.environ.setdefault("WANDB_DIR", str(run.folder))
