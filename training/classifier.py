"""Classifier: a label for an answer or a text, by a head on the whole model (BERT, arXiv 1810.04805, section 3.2)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from torch.nn import functional
from transformers import EvalPrediction, TrainingArguments
from transformers import Trainer as TransformersTrainer

from training.batches import Lengths, encode, padded
from training.classifier_quality import LengthBaseline, quality, sentence
from training.labelled import Data, Example, examples_of
from training.recipe import ClassifierRecipe
from training.recipe_base import Recipe
from training.runs import Run
from training.trainer import Report, RunTrainer, arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Trainer(RunTrainer, TransformersTrainer):
    """transformers' own, with figures on the validation split."""

    def attach(self, run: Run, recipe: Recipe, report: Report) -> None:
        super().attach(run, recipe, report)
        self._report = report

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "eval_accuracy" in logs:
            self._report(sentence(logs))
        super().log(logs, start_time)


def cross_entropy(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
    """The right label's negative log-probability, as a mean.

    The models' own is the mean of one forward pass, whatever share of the batch that is; Trainer takes it to know.

    Args:
        num_items_in_batch: examples in the whole batch; this forward pass may hold a part of them.
    """
    summed = functional.cross_entropy(outputs.logits.float(), labels, reduction="sum")
    return summed / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def select_rows(recipe: ClassifierRecipe, version: Data, split: str) -> list[Example]:
    """The labelled examples: the answers of the version's pairs, or those of a file."""
    return examples_of(version, split)


def encode_rows(
    tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example], max_length: int
) -> tuple[list[dict[str, Any]], Lengths]:
    """Examples as `input_ids` (some encoders' with `token_type_ids`), the `label`'s name, `length` in characters."""
    encoded, lengths = [], Lengths()
    for example in examples:
        row, cut = encode_example(tokenizer, example, max_length)
        lengths.rows += 1
        lengths.truncated += cut
        encoded.append({**row, "label": example.label, "length": len(example.text)})
    return encoded, lengths


def encode_example(
    tokenizer: "PreTrainedTokenizerBase", example: Example, max_length: int
) -> tuple[dict[str, list[int]], bool]:
    """One example's token ids, and whether it had to be cut.

    An encoder reads [CLS] conversation [SEP] answer [SEP], the longer of the two being cut; a decoder the conversation
    in its chat template's form with the answer and its EOS, or the text with it, cut behind the first token, since the
    label is read at the last one.
    """
    if tokenizer.cls_token_id is not None:
        asked = "\n".join(message.content for message in example.prompt)
        texts = [asked, example.text] if example.prompt else [example.text]
        whole = tokenizer(*texts, return_attention_mask=False)
        cut = len(whole["input_ids"]) > max_length
        if cut:
            whole = tokenizer(*texts, return_attention_mask=False, truncation="longest_first", max_length=max_length)
        return dict(whole), cut
    if example.prompt:
        prompt, answer = encode(tokenizer, [message.model_dump() for message in example.prompt], example.text)
        ids = prompt + answer
    else:
        ids = [*tokenizer(example.text)["input_ids"], tokenizer.eos_token_id]
    if len(ids) > max_length:
        return {"input_ids": [ids[0], *ids[len(ids) - max_length + 1 :]]}, True
    return {"input_ids": ids}, False


def collator(pad_token_id: int, label2id: Mapping[str, int]) -> Any:
    """Batches with the labels as places."""

    def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        return {**padded(rows, pad_token_id), "labels": torch.tensor([label2id[row["label"]] for row in rows])}

    return collate


def make_trainer(
    recipe: ClassifierRecipe, run: Run, model: Any, tokenizer: Any, train: Dataset, validation: Dataset | None
) -> Trainer:
    """A trainer for rows that are encoded already."""
    common = arguments(recipe, run) | ({} if validation else {"eval_strategy": "no"})
    # A key of TRL's.
    del common["max_length"]
    label2id: dict[str, int] = model.config.label2id
    return Trainer(
        model=model,
        args=TrainingArguments(**common),
        compute_loss_func=cross_entropy,
        data_collator=collator(tokenizer.pad_token_id, label2id),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        compute_metrics=_figures(train, validation, label2id) if validation else None,
    )


def _figures(train: Dataset, validation: Dataset, label2id: Mapping[str, int]) -> Any:
    baseline = LengthBaseline(train["length"], [label2id[label] for label in train["label"]], len(label2id))

    def figures(prediction: EvalPrediction) -> dict[str, float]:
        logits = prediction.predictions
        logits = torch.as_tensor(logits[0] if isinstance(logits, tuple) else logits).float()
        by_length = quality(baseline(validation["length"]), prediction.label_ids)
        return quality(logits.softmax(-1), prediction.label_ids) | {
            f"length_{name}": by_length[name] for name in ("accuracy", "f1_macro", "auroc") if name in by_length
        }

    return figures
