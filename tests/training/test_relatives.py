"""KTO and ORPO: their losses against the papers' formulas, computed answer by answer."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import kto, models, orpo
from training.batches import answer_rows, pair_rows
from training.launch import train
from training.losses import odds_ratio
from training.recipe import KTORecipe, ORPORecipe
from training.runs import Run

ANSWERS = (("four", "five, I think"), ("sixteen", "ten"), ("it is not known", "1"))
PAIRS = [
    {"prompt": [{"role": "user", "content": f"{i} + {i}?"}], "chosen": c, "rejected": r, "probability": 1.0}
    for i, (c, r) in enumerate(ANSWERS)
]


def log_prob(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None]).sum()


def moved(model: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def assert_same(model: Any, loss: torch.Tensor, by_hand: Callable[[], torch.Tensor]) -> None:
    """Both losses and their gradients."""
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = by_hand()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert max(gradient.abs().max().item() for gradient in found.values()) > 1e-3
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-5, msg=name)


def test_kto_equals_equation_8_with_the_kl_of_mismatched_answers(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = models.load_tokenizer(str(tiny_model))
    rows, _ = answer_rows(tokenizer, PAIRS, 100)
    assert [row["label"] for row in rows] == [True, False] * 3
    recipe = KTORecipe(dataset="x", tuning="full", beta=0.3, undesirable_weight=0.7, max_length=100)
    base = models.load_base(str(tiny_model))
    trainer = kto.make_trainer(recipe, Run(tmp_path), copy.deepcopy(base), tokenizer, Dataset.from_list(rows), None)
    model = moved(trainer.model)
    assert trainer.args.train_sampling_strategy == "random"

    def by_hand() -> torch.Tensor:
        def ratio(row: dict[str, Any], answer: list[int]) -> torch.Tensor:
            with torch.no_grad():
                reference = log_prob(base, row["prompt_ids"], answer)
            return log_prob(model, row["prompt_ids"], answer) - reference

        others = [rows[-1], *rows[:-1]]
        kl = torch.stack([ratio(r, o["completion_ids"]) for r, o in zip(rows, others, strict=True)]).mean().detach()
        kl = kl.clamp(min=0)
        losses = [
            1 - torch.sigmoid(0.3 * (ratio(row, row["completion_ids"]) - kl))
            if row["label"]
            else 0.7 * (1 - torch.sigmoid(0.3 * (kl - ratio(row, row["completion_ids"]))))
            for row in rows
        ]
        return torch.stack(losses).mean()

    assert_same(model, trainer.compute_loss(model, trainer.data_collator(rows)), by_hand)


def test_orpo_equals_equation_6_over_answers(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = models.load_tokenizer(str(tiny_model))
    rows, _ = pair_rows(tokenizer, PAIRS, 100)
    recipe = ORPORecipe(dataset="x", tuning="full", odds_weight=0.4)
    trainer = orpo.make_trainer(
        recipe, Run(tmp_path), models.load_base(str(tiny_model)), tokenizer, Dataset.from_list(rows), None
    )
    trainer.attach(Run(tmp_path), recipe, lambda line: None)
    model = trainer.model

    def by_hand() -> torch.Tensor:
        nll, contrast = torch.zeros(()), torch.zeros(())
        for row in rows:
            odds = []
            for kind in ("chosen", "rejected"):
                logp = log_prob(model, row["prompt_ids"], row[f"{kind}_ids"])
                nll = nll - logp if kind == "chosen" else nll
                p = (logp / len(row[f"{kind}_ids"])).exp()
                odds.append(p / (1 - p))
            contrast = contrast - torch.nn.functional.logsigmoid((odds[0] / odds[1]).log())
        return nll / sum(len(row["chosen_ids"]) for row in rows) + 0.4 * contrast / len(rows)

    assert_same(model, trainer.compute_loss(model, trainer.data_collator(rows)), by_hand)


def test_the_odds_ratio_is_trls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.orpo import ORPOTrainer

    chosen, rejected = torch.tensor([-0.1, -2.0, -1e-4]), torch.tensor([-3.0, -0.5, -1e-3])
    holder = type("Holder", (), {"beta": 1.0, "accelerator": type("A", (), {"device": "cpu"})})
    losses, *_ = ORPOTrainer.odds_ratio_loss(holder, chosen, rejected)
    torch.testing.assert_close(odds_ratio(chosen, rejected), -losses, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("method", "metric"), [("kto", "kl"), ("orpo", "odds_ratio_loss")])
def test_a_run_teaches_which_answer_is_better(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, method: str, metric: str
) -> None:
    keys = ["dataset=sums", f"model={tiny_model}", "max_steps=12", "batch_size=16", "learning_rate=1e-2", "log_every=1"]
    run = train(workspace, method, keys, lambda line: None)
    steps = [line for line in run.metrics() if "loss" in line]
    assert {metric, "logps/chosen", "logps/rejected", "num_tokens"} <= steps[-1].keys()
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert any("eval_loss" in line for line in run.metrics())
