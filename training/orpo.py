"""Odds ratio preference optimisation (arXiv 2403.07691): SFT on the chosen answers, and away from the rejected ones."""

from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from feedback.versions import DatasetVersion
from training.batches import pair_rows as encode_rows
from training.dpo import answer_log_probs
from training.losses import odds_ratio
from training.recipe import ORPORecipe
from training.runs import Run
from training.trainer import RunTrainer, arguments, without_base_dropout

__all__ = ["Trainer", "encode_rows", "make_trainer", "select_rows"]


class Trainer(RunTrainer, SFTTrainer):
    """The chosen answers' mean negative log-likelihood, plus lambda times the odds ratio's (equation 6).

    There is no reference. TRL's, in its experimental part, counts the prompts' tokens among those that are to be
    imitated; here it is answers only, as in SFT.
    """

    recipe: ORPORecipe
    loss_is_scaled_for_ga = False

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        # Our own encoding keeps the prompt's tokens as they are at inference; TRL would tokenize anew.
        return dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = answer_log_probs(model, inputs)
        chosen, rejected = outputs.log_probs.sum(1).chunk(2)
        chosen_tokens, rejected_tokens = inputs["completion_mask"].sum(1).chunk(2)
        nll = -chosen.sum() / chosen_tokens.sum()
        per_token = chosen / chosen_tokens, rejected / rejected_tokens
        contrast = odds_ratio(*per_token)
        loss = nll + self.recipe.odds_weight * contrast.mean()
        with torch.no_grad():
            self._note(inputs, nll, contrast, *per_token, chosen_tokens.float(), rejected_tokens.float())
        return (loss, outputs) if return_outputs else loss

    def _note(self, inputs: dict[str, torch.Tensor], nll: torch.Tensor, *of_pairs: torch.Tensor) -> None:
        mode = "train" if self.model.training else "eval"
        if mode == "train":
            self._total_train_tokens += self.accelerator.gather(inputs["attention_mask"].sum()).sum().item()
        noted = self._metrics[mode]
        noted["num_tokens"] = [self._total_train_tokens]
        contrast, chosen, rejected, chosen_tokens, rejected_tokens = of_pairs
        for name, values in {
            "nll_loss": nll,
            "odds_ratio_loss": contrast,
            "logps/chosen": chosen,
            "logps/rejected": rejected,
            "rewards/accuracies": (chosen > rejected).float(),
            "length/chosen": chosen_tokens,
            "length/rejected": rejected_tokens,
        }.items():
            noted[name].append(self.accelerator.gather(values).mean().item())


def select_rows(recipe: ORPORecipe, version: DatasetVersion, split: str) -> Dataset:
    """The version's preference pairs."""
    return version.pairs(split)


def make_trainer(
    recipe: ORPORecipe, run: Run, model: Any, tokenizer: Any, train: Dataset, validation: Dataset | None
) -> Trainer:
    """A trainer for rows that are encoded already."""
    common = arguments(recipe, run) | ({} if validation else {"eval_strategy": "no"})
    without_base_dropout(model)
    return Trainer(
        model=model,
        args=SFTConfig(**common),
        data_collator=DataCollatorForPreference(tokenizer.pad_token_id),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
    )
