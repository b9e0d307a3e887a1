"""The loss of supervised fine-tuning, packed or not, against its formula."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import models
from training.batches import IGNORED, demonstration_rows
from training.launch import train
from training.recipe import SFTRecipe
from training.runs import Run
from training.sft import make_trainer

ANSWERS = ("four", "it is sixteen, I think", "1", "nobody knows", "two and two make four, which is known to all")


def rows(model: Path) -> list[dict[str, Any]]:
    demonstrations = [
        {"prompt": [{"role": "user", "content": f"{i} + {i}?"}], "completion": answer}
        for i, answer in enumerate(ANSWERS)
    ]
    return demonstration_rows(models.load_tokenizer(str(model)), demonstrations, 96)[0]


def by_hand(model: Any, encoded: list[dict[str, Any]]) -> torch.Tensor:
    """Mean negative log-likelihood of the answers' tokens, each example on its own."""
    total, count = torch.zeros(()), 0
    for row in encoded:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"][1:])
        log_probs = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
        answer = labels != IGNORED
        total = total - log_probs[answer].gather(-1, labels[answer, None]).sum()
        count += int(answer.sum())
    return total / count


@pytest.mark.parametrize("packing", [False, True])
def test_loss_and_gradients_equal_the_formula(tiny_model: Path, tmp_path: Path, packing: bool) -> None:
    encoded = rows(tiny_model)
    model = models.load_base(str(tiny_model))
    recipe = SFTRecipe(dataset="x", packing=packing, max_length=96, batch_size=len(encoded))
    tokenizer = models.load_tokenizer(str(tiny_model))
    trainer = make_trainer(recipe, Run(tmp_path), model, tokenizer, Dataset.from_list(encoded), None)
    packed = list(trainer.train_dataset)
    assert len(packed) == (2 if packing else len(encoded))
    loss = trainer.compute_loss(model, trainer.data_collator(packed))
    loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    expected = by_hand(model, encoded)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-5, msg=name)


def test_a_packed_run_counts_its_own_steps(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    keys = ["dataset=sums", f"model={tiny_model}", "batch_size=1", "packing=true", "max_length=128", "log_every=1"]
    run = train(workspace, "sft", keys, lambda line: None)
    assert run.manifest["preflight"]["rows"] > run.status()["total_steps"] == run.status()["step"] > 1
