"""Supervised fine-tuning on answers only (InstructGPT, arXiv 2203.02155, section 3.5)."""

from typing import Any

from datasets import Dataset, concatenate_datasets
from trl import SFTConfig, SFTTrainer

from feedback.versions import DatasetVersion
from training.batches import demonstration_rows as encode_rows
from training.recipe import SFTRecipe
from training.runs import Run
from training.trainer import RunTrainer, arguments

__all__ = ["Trainer", "encode_rows", "make_trainer", "select_rows"]


class Trainer(RunTrainer, SFTTrainer):
    """TRL's SFT: mean cross-entropy over the tokens whose label is not -100.

    Packed, a batch is one long row; positions that begin anew keep its examples apart.
    """


def select_rows(recipe: SFTRecipe, version: DatasetVersion, split: str) -> Dataset:
    """The prompts and completions that the recipe asks for."""
    demonstrations = version.demonstrations(split).select_columns(["prompt", "completion"])
    chosen = version.pairs(split).select_columns(["prompt", "chosen"]).rename_column("chosen", "completion")
    return {
        "demonstrations": demonstrations,
        "chosen": chosen,
        "both": concatenate_datasets([demonstrations, chosen]),
    }[recipe.examples]


def make_trainer(
    recipe: SFTRecipe, run: Run, model: Any, tokenizer: Any, train: Dataset, validation: Dataset | None
) -> Trainer:
    """A trainer for rows that are encoded already."""
    common = arguments(recipe, run) | ({} if validation else {"eval_strategy": "no"})
    if recipe.packing:
        common["max_length"] = recipe.max_length
    return Trainer(
        model=model,
        args=SFTConfig(**common, packing=recipe.packing),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
    )
