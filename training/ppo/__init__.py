"""Proximal policy optimisation, our own: losses, rollouts, four roles on one base, and the trainer of all that."""

from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers import TrainingArguments

from feedback import versions
from feedback.errors import UserError
from feedback.schema import Message, prompt_key
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import models, runs, sft
from training.batches import prompt_rows as encode_rows
from training.ppo.roles import Roles
from training.ppo.trainer import Demonstrations, PPOTrainer
from training.recipe import PPORecipe, SFTRecipe
from training.rewards import load_reward, reward_run
from training.runs import Run
from training.trainer import arguments

__all__ = ["encode_rows", "make_trainer", "select_rows"]


def select_rows(recipe: PPORecipe, version: DatasetVersion, split: str) -> Dataset:
    """The prompts of the version's pairs and demonstrations, each once."""
    both = (version.pairs(split), version.demonstrations(split))
    prompts = concatenate_datasets([rows.select_columns(["prompt"]) for rows in both])
    places = {prompt_key(tuple(map(Message.model_validate, prompt))): i for i, prompt in enumerate(prompts["prompt"])}
    return prompts.select(sorted(places.values()))


def make_trainer(
    recipe: PPORecipe, run: Run, model: Any, tokenizer: Any, train: Dataset, validation: Dataset | None
) -> PPOTrainer:
    """A trainer for prompts that are encoded already."""
    workspace = Workspace(run.folder.parents[1])
    parent = runs.find(workspace, recipe.parent) if recipe.parent else None
    judge = reward_run(workspace, recipe.reward)
    shared = judge is not None and _fits(judge, run, tokenizer)
    common = arguments(recipe, run) | ({} if validation else {"eval_strategy": "no"})
    del common["max_length"]
    common |= {
        "per_device_train_batch_size": recipe.rollouts,
        # One batch is one iteration, which accumulates and clips gradients itself.
        "gradient_accumulation_steps": 1,
        "max_grad_norm": 0.0,
    }
    return PPOTrainer(
        recipe,
        Roles(
            model,
            parent.weights if parent is not None and parent.tuning == "lora" else None,
            judge.weights if judge is not None and shared else None,
        ),
        None if shared else load_reward(workspace, recipe.reward),
        _demonstrations(workspace, parent, tokenizer, recipe) if parent is not None and recipe.ptx_weight else [],
        args=TrainingArguments(**common),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
    )


def _fits(judge: Run, run: Run, tokenizer: Any) -> bool:
    """Whether a reward model's adapter can sit on this run's base, and reads conversations in the same form."""
    theirs = models.load_tokenizer(str(judge.weights))
    return (
        judge.tuning == "lora"
        and judge.manifest["model"]["hash"] == run.manifest["model"]["hash"]
        and (theirs.chat_template, theirs.eos_token) == (tokenizer.chat_template, tokenizer.eos_token)
    )


def _demonstrations(workspace: Workspace, parent: Run, tokenizer: Any, recipe: PPORecipe) -> Demonstrations:
    """What the parent learned from, as token ids of prompts and completions."""
    version = versions.load(workspace, parent.manifest["dataset"]["id"])
    imitated = parent.recipe if isinstance(parent.recipe, SFTRecipe) else SFTRecipe(dataset=version.id)
    assert recipe.max_length is not None
    rows, _ = sft.encode_rows(tokenizer, sft.select_rows(imitated, version, "train"), recipe.max_length)
    if not rows:
        raise UserError(f"ptx_weight: the parent {parent.id} learned from {version.id}, which has no demonstrations")
    starts = [next(i for i, label in enumerate(row["labels"]) if label >= 0) for row in rows]
    return [(row["input_ids"][:start], row["input_ids"][start:]) for start, row in zip(starts, rows, strict=True)]
