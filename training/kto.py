"""Kahneman-Tversky optimisation (arXiv 2402.01306): from answers that are each good or bad, through TRL's trainer."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from trl import KTOConfig, KTOTrainer

from feedback.versions import DatasetVersion
from training.batches import answer_rows as encode_rows
from training.recipe import KTORecipe
from training.runs import Run
from training.trainer import RunTrainer, arguments

__all__ = ["Trainer", "encode_rows", "make_trainer", "select_rows"]


class Trainer(RunTrainer, KTOTrainer):
    """TRL's KTO (equation 8): desirable answers are to gain on the reference by more than the batch does, others less.

    The reference is the base with the adapter off, a frozen copy of the parent's adapter, or of all weights.
    """

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        # Our own encoding keeps the prompt's tokens as they are at inference; TRL would tokenize anew.
        return dataset


def collator(of_trl: Any, max_length: int) -> Any:
    """TRL's batches, in which each prompt also has another one's answer, by which the batch's KL is estimated."""

    def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        others = [*rows[-1:], *rows[:-1]]
        return of_trl(
            [
                {**row, "KL_completion_ids": other["completion_ids"][: max_length - len(row["prompt_ids"])]}
                for row, other in zip(rows, others, strict=True)
            ]
        )

    return collate


def select_rows(recipe: KTORecipe, version: DatasetVersion, split: str) -> Dataset:
    """The version's preference pairs."""
    return version.pairs(split)


def make_trainer(
    recipe: KTORecipe, run: Run, model: Any, tokenizer: Any, train: Dataset, validation: Dataset | None
) -> Trainer:
    """A trainer for rows that are encoded already."""
    common = arguments(recipe, run) | ({} if validation else {"eval_strategy": "no"})
    trainer = Trainer(
        model=model,
        # Left to itself TRL reads one from the base's folder, which a merged parent no longer is.
        ref_model=copy.deepcopy(model) if recipe.tuning == "full" else None,
        args=KTOConfig(
            **common,
            beta=recipe.beta,
            desirable_weight=recipe.desirable_weight,
            undesirable_weight=recipe.undesirable_weight,
        ),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
    )
    assert recipe.max_length is not None
    trainer.data_collator = collator(trainer.data_collator, recipe.max_length)
    # TRL mismatches answers once, and so must keep the rows' order; here each batch does it anew.
    trainer.args.train_sampling_strategy = "random"
    return trainer
