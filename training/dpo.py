"""Direct preference optimisation (arXiv 2305.18290, equation 7), against the model as it was at the start."""

import copy
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from feedback.versions import DatasetVersion
from training.batches import pair_rows as encode_rows
from training.recipe import DPORecipe
from training.runs import Run
from training.trainer import RunTrainer, arguments

__all__ = ["Trainer", "encode_rows", "make_trainer", "select_rows"]


class Trainer(RunTrainer, DPOTrainer):
    """TRL's DPO: -log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)), plus the weighted SFT term.

    The reference is the base with the adapter off, a frozen copy of the parent's adapter, or of all weights.
    """

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        # Our own encoding keeps the prompt's tokens as they are at inference; TRL would tokenize anew.
        return dataset


def select_rows(recipe: DPORecipe, version: DatasetVersion, split: str) -> Dataset:
    """The version's preference pairs."""
    return version.pairs(split)


def make_trainer(
    recipe: DPORecipe, run: Run, model: Any, tokenizer: Any, train: Dataset, validation: Dataset | None
) -> Trainer:
    """A trainer for rows that are encoded already."""
    common = arguments(recipe, run) | ({} if validation else {"eval_strategy": "no"})
    losses = {"sigmoid": 1.0} | ({"sft": recipe.sft_weight} if recipe.sft_weight else {})
    return Trainer(
        model=model,
        # Left to itself TRL reads one from the base's folder, which a merged parent no longer is.
        ref_model=copy.deepcopy(model) if recipe.tuning == "full" else None,
        args=DPOConfig(**common, beta=recipe.beta, loss_type=list(losses), loss_weights=list(losses.values())),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
    )
