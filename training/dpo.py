"""Direct preference optimisation (arXiv 2305.18290), against the model as it was at the start, and its relatives."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from feedback.versions import DatasetVersion
from training.batches import pair_rows as encode_rows
from training.losses import LOSSES, Pairs, expected, sft
from training.recipe import DPORecipe
from training.runs import Run
from training.trainer import RunTrainer, arguments, without_base_dropout

__all__ = ["Trainer", "encode_rows", "make_trainer", "select_rows"]


class Trainer(RunTrainer, DPOTrainer):
    """TRL's DPO trainer with our losses, which know of each pair's probability.

    The reference is the base with the adapter off, a frozen copy of the parent's adapter, or of all weights.
    """

    recipe: DPORecipe

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        # Our own encoding keeps the prompt's tokens as they are at inference; TRL would tokenize anew.
        return dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        recipe, probability = self.recipe, inputs.pop("probability")
        pairs, outputs = self.log_probs(model, inputs)
        label = probability if recipe.soft_labels else torch.ones_like(probability)
        loss = expected(LOSSES[recipe.loss], pairs, label, recipe.beta, recipe.label_smoothing).mean()
        if recipe.sft_weight:
            loss = loss + recipe.sft_weight * sft(pairs)
        self._note(pairs, outputs, inputs)
        return loss

    def log_probs(self, model: Any, inputs: dict[str, torch.Tensor]) -> tuple[Pairs, Any]:
        """What policy and reference make of a batch: chosen answers in its first half, rejected ones in its second."""
        outputs = answer_log_probs(model, inputs)
        training = model.training
        model.eval()
        reference = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        model.train(training)
        policy, tokens = outputs.log_probs.sum(1).chunk(2), inputs["completion_mask"].sum(1).chunk(2)
        return Pairs(*policy, *reference, *tokens), outputs

    @torch.no_grad()
    def _note(self, pairs: Pairs, outputs: Any, inputs: dict[str, torch.Tensor]) -> None:
        """Keep what the metrics need, under TRL's names."""
        mode = "train" if self.model.training else "eval"
        if mode == "train":
            self._total_train_tokens += self.accelerator.gather(inputs["attention_mask"].sum()).sum().item()
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
        mask = inputs["completion_mask"][:, 1:].bool()
        chosen, rejected = self.recipe.beta * pairs.chosen_ratio, self.recipe.beta * pairs.rejected_ratio
        of_chosen = mask.chunk(2)[0]
        for name, values in {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/accuracies": (chosen > rejected).float(),
            "rewards/margins": chosen - rejected,
            "logps/chosen": pairs.chosen,
            "logps/rejected": pairs.rejected,
            "length/chosen": pairs.chosen_tokens.float(),
            "length/rejected": pairs.rejected_tokens.float(),
            "entropy": outputs.entropy[mask].mean(),
            "mean_token_accuracy": outputs.is_top1.chunk(2)[0][of_chosen].float().mean(),
        }.items():
            self._metrics[mode][name].append(self.accelerator.gather(values).mean().item())


def answer_log_probs(model: Any, inputs: dict[str, torch.Tensor]) -> Any:
    """What a model makes of the answers in a batch, token by token; `log_probs` are zero elsewhere."""
    # TRL's fused head gives log-probabilities of the labels, without ever holding all logits.
    return model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        labels=inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100),
        use_cache=False,
        fused_lm_head=True,
    )


def collator(of_trl: Any) -> Any:
    """TRL's batches, with each pair's probability."""

    def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        return of_trl(rows) | {"probability": torch.tensor([row["probability"] for row in rows])}

    return collate


def select_rows(recipe: DPORecipe, version: DatasetVersion, split: str) -> Dataset:
    """The version's preference pairs."""
    return version.pairs(split)


def make_trainer(
    recipe: DPORecipe, run: Run, model: Any, tokenizer: Any, train: Dataset, validation: Dataset | None
) -> Trainer:
    """A trainer for rows that are encoded already."""
    common = arguments(recipe, run) | ({} if validation else {"eval_strategy": "no"})
    without_base_dropout(model)
    trainer = Trainer(
        model=model,
        # Left to itself TRL reads one from the base's folder, which a merged parent no longer is.
        ref_model=copy.deepcopy(model) if recipe.tuning == "full" else None,
        args=DPOConfig(**common, disable_dropout=False),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
    )
    trainer.data_collator = collator(trainer.data_collator)
    return trainer
