"""Group relative policy optimisation (arXiv 2402.03300) against a reward, through TRL's trainer."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from feedback.errors import UserError
from feedback.workspace import Workspace
from training.batches import prompt_rows as encode_rows
from training.ppo import select_rows
from training.recipe import GRPORecipe
from training.rewards import Reward, load_reward
from training.runs import Run
from training.trainer import RunTrainer, arguments

__all__ = ["Trainer", "encode_rows", "make_trainer", "select_rows"]


class Trainer(RunTrainer, GRPOTrainer):
    """TRL's GRPO: several answers to each prompt are sampled, and each is worth what it scores above their mean.

    The reference is the base with the adapter off, or a frozen copy of the parent's adapter.
    """

    told = ("reward", "completions/mean_length")


def of_conversations(reward: Reward) -> Any:
    """A reward as TRL calls it, with the answers as messages."""

    def scores(
        prompts: Sequence[Sequence[Mapping[str, str]]], completions: Sequence[Sequence[Mapping[str, str]]], **_: Any
    ) -> list[float]:
        return list(reward(prompts, [answer[0]["content"] for answer in completions]))

    return scores


def make_trainer(
    recipe: GRPORecipe, run: Run, model: Any, tokenizer: Any, train: Dataset, validation: Dataset | None
) -> Trainer:
    """A trainer for prompts; its batches are of answers, `generations` to each."""
    common = arguments(recipe, run) | ({} if validation else {"eval_strategy": "no"})
    del common["max_length"]
    if len(train) < recipe.rows_per_step:
        raise UserError(
            f"batch_size: a step takes {recipe.rows_per_step} prompts, and {recipe.dataset} has {len(train)} to train "
            "on; lower batch_size or gradient_accumulation"
        )
    if recipe.max_steps is None:
        # TRL leaves out a last step that is not whole, and so would end before the run says it does.
        common["max_steps"] = ceil(recipe.epochs * ceil(len(train) / recipe.rows_per_step))
    return Trainer(
        model=model,
        reward_funcs=of_conversations(load_reward(Workspace(run.folder.parents[1]), recipe.reward)),
        args=GRPOConfig(
            **common,
            num_generations=recipe.generations,
            max_completion_length=recipe.max_new_tokens,
            temperature=recipe.temperature,
            beta=recipe.beta,
            epsilon=recipe.clip,
            loss_type=recipe.loss,
        ),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
    )
