"""Reward model: a score for an answer, learned from which of two answers people prefer (Bradley-Terry)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional
from trl import RewardConfig, RewardTrainer

from feedback.versions import DatasetVersion
from training.batches import comparison_rows as encode_rows
from training.batches import padded
from training.recipe import RewardRecipe
from training.recipe_base import Recipe
from training.reward_quality import Judged, longer_is_better, quality, sentence
from training.runs import Run
from training.trainer import Report, RunTrainer, arguments, without_base_dropout

__all__ = ["Trainer", "bradley_terry", "encode_rows", "make_trainer", "select_rows"]


def bradley_terry(
    better: torch.Tensor,
    worse: torch.Tensor,
    probability: torch.Tensor,
    weight: torch.Tensor,
    margin: float = 0.0,
    centring: float = 0.0,
) -> torch.Tensor:
    """The loss of a batch of pairs: InstructGPT's (arXiv 2203.02155, equation 1), of labels that may be unsure.

    The negative log-likelihood of the label, log sigmoid(better - worse), expected under the pair's probability; Llama
    2's margin (arXiv 2307.09288, equation 2), which the preferred answer must win by, larger where the label is surer;
    and the square of the scores' sum, which keeps their mean at zero (arXiv 2312.09244, equation 2).

    Args:
        better, worse: scores of the two answers of each pair, shape (pairs,).
        probability: that the better one is better, 0.5 to 1, shape (pairs,).
        weight: what each pair counts, shape (pairs,); they sum to one.
    """
    apart = margin * (2 * probability - 1)
    right = functional.logsigmoid(better - worse - apart)
    wrong = functional.logsigmoid(worse - better - apart)
    loss = -(probability * right + (1 - probability) * wrong) + centring * (better + worse) ** 2
    return (weight * loss).sum()


def prompt_weights(pairs: torch.Tensor) -> torch.Tensor:
    """What each pair counts when each prompt counts the same, however many pairs its answers make.

    Args:
        pairs: how many pairs each prompt has, shape (prompts,).
    """
    return (1.0 / (len(pairs) * pairs)).repeat_interleave(pairs)


class Trainer(RunTrainer, RewardTrainer):
    """TRL's reward trainer with batches of prompts, each with all its answers and the pairs that they make."""

    recipe: RewardRecipe

    def attach(self, run: Run, recipe: Recipe, report: Report) -> None:
        super().attach(run, recipe, report)
        self._report = report
        self._judged: list[Judged] = []
        self.longer_wins = longer_is_better(self.train_dataset)

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        # Our own encoding keeps the prompt's tokens as they are at inference; TRL would tokenize anew.
        return dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        scores = outputs.logits.squeeze(-1).float()
        better, worse = scores[inputs["better"]], scores[inputs["worse"]]
        probability = inputs["probability"]
        loss = bradley_terry(
            better,
            worse,
            probability if self.recipe.soft_labels else torch.ones_like(probability),
            prompt_weights(inputs["pairs"]),
            self.recipe.margin,
            self.recipe.centring,
        )
        self._note(inputs, scores.detach())
        return (loss, outputs) if return_outputs else loss

    def _note(self, inputs: dict[str, torch.Tensor], scores: torch.Tensor) -> None:
        """Keep what the metrics need, under TRL's names."""
        if not self.model.training:
            # As objects: how many answers and pairs a prompt has differs from process to process.
            self._judged += self.accelerator.gather_for_metrics(judged(inputs, scores), use_gather_object=True)
            return
        noted = self._metrics["train"]
        self._total_train_tokens += self.accelerator.gather(inputs["attention_mask"].sum()).sum().item()
        noted["num_tokens"] = [self._total_train_tokens]
        difference = scores[inputs["better"]] - scores[inputs["worse"]]
        for name, value in {
            "accuracy": (difference > 0).float().mean(),
            "margin": difference.mean(),
            "min_reward": scores.min(),
            "mean_reward": scores.mean(),
            "max_reward": scores.max(),
        }.items():
            noted[name].append(self.accelerator.gather(value).mean().item())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if not self.model.training and self._judged:
            logs |= {f"eval_{name}": value for name, value in quality(self._judged, self.longer_wins).items()}
            self._judged = []
            self._report(sentence(logs))
        super().log(logs, start_time)


def judged(inputs: dict[str, torch.Tensor], scores: torch.Tensor) -> list[Judged]:
    """What was scored, prompt by prompt, off the device."""
    pairs = torch.stack([inputs["better"], inputs["worse"]], 1).tolist()
    probability, lengths, rewards = inputs["probability"].tolist(), inputs["lengths"].tolist(), scores.tolist()
    found, start = [], 0
    for count in inputs["pairs"].tolist():
        mine = range(start, start + count)
        start += count
        places = sorted({place for i in mine for place in pairs[i]})
        found.append(
            Judged(
                rewards=[rewards[place] for place in places],
                lengths=[lengths[place] for place in places],
                pairs=[(places.index(pairs[i][0]), places.index(pairs[i][1]), probability[i]) for i in mine],
            )
        )
    return found


def collator(pad_token_id: int) -> Any:
    """Batches of prompts; all their answers in one tensor, and the pairs as places in it."""

    def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        sequences: list[list[int]] = []
        lengths, better, worse = [], [], []
        for row in rows:
            better += [len(sequences) + place for place in row["better"]]
            worse += [len(sequences) + place for place in row["worse"]]
            sequences += [row["prompt_ids"] + answer for answer in row["answers"]]
            lengths += [len(answer) for answer in row["answers"]]
        return {
            # First, since Trainer weighs a batch's loss by the length of its first tensor.
            "pairs": torch.tensor([len(row["better"]) for row in rows]),
            **padded([{"input_ids": sequence} for sequence in sequences], pad_token_id),
            "better": torch.tensor(better),
            "worse": torch.tensor(worse),
            "probability": torch.tensor([p for row in rows for p in row["probability"]]),
            "lengths": torch.tensor(lengths),
        }

    return collate


def select_rows(recipe: RewardRecipe, version: DatasetVersion, split: str) -> Dataset:
    """The version's preference pairs."""
    return version.pairs(split)


def make_trainer(
    recipe: RewardRecipe, run: Run, model: Any, tokenizer: Any, train: Dataset, validation: Dataset | None
) -> Trainer:
    """A trainer for rows that are encoded already."""
    common = arguments(recipe, run) | ({} if validation else {"eval_strategy": "no"})
    without_base_dropout(model)
    return Trainer(
        model=model,
        args=RewardConfig(**common, disable_dropout=False),
        data_collator=collator(tokenizer.pad_token_id),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
    )
