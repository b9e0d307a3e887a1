"""Every preference loss equals TRL's on the same batch, its gradients too; soft labels equal their formula."""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from training import adapters, models
from training.batches import pair_rows
from training.dpo import Trainer, make_trainer
from training.losses import LOSSES, Pairs, expected, sft
from training.recipe import DPORecipe
from training.recipe_base import Lora
from training.runs import Run

BETA = 0.3
SMOOTHED = {"robust": 0.1, "exo_pair": 1e-3, "aot": 0.2, "aot_unpaired": 0.2}


@dataclass
class Both:
    """Our trainer and TRL's, on copies of one model, with one batch for each."""

    ours: Trainer
    theirs: DPOTrainer
    rows: list[dict[str, Any]]

    def loss_and_gradients(self, trainer: Any) -> tuple[float, dict[str, torch.Tensor]]:
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(self.rows))
        loss.backward()
        return loss.item(), {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def both(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("run")
    tokenizer = models.load_tokenizer(str(tiny_model))
    answers = [("four", "five, I think"), ("sixteen", "ten"), ("it is not known", "1"), ("a", "bbb")]
    pairs = [
        {"prompt": [{"role": "user", "content": f"{i} + {i}?"}], "chosen": c, "rejected": r, "probability": 1.0}
        for i, (c, r) in enumerate(answers)
    ]
    rows, _ = pair_rows(tokenizer, pairs, 100)
    base = models.load_base(str(tiny_model))
    recipe = DPORecipe(dataset="x", tuning="full", beta=BETA)
    ours = make_trainer(recipe, Run(folder), copy.deepcopy(base), tokenizer, Dataset.from_list(rows), None)
    ours.attach(Run(folder), recipe, lambda line: None)
    keys: dict[str, Any] = {"bf16": False, "use_cpu": True, "report_to": "none", "gradient_checkpointing": False}
    theirs = DPOTrainer(
        model=copy.deepcopy(base),
        ref_model=copy.deepcopy(base),
        args=DPOConfig(output_dir=str(folder), beta=BETA, **keys),
        # It tokenizes by itself; the batches that are compared are ours.
        train_dataset=Dataset.from_list([{"prompt": "?", "chosen": "a", "rejected": "b"}]),
        processing_class=tokenizer,
    )
    # Away from the reference, where all losses but a few are flat or equal.
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for mine, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
            step = 0.02 * torch.randn(mine.shape, generator=generator)
            mine.add_(step)
            other.add_(step)
    return Both(ours, theirs, rows)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sft_weight", [0.0, 0.5])
def test_loss_and_gradients_equal_trls_on_the_same_batch(both: Both, loss: str, sft_weight: float) -> None:
    smoothing = SMOOTHED.get(loss, 0.0)
    both.ours.recipe = DPORecipe(
        dataset="x",
        beta=BETA,
        loss=loss,
        label_smoothing=smoothing,
        sft_weight=sft_weight,
        soft_labels=not loss.startswith("aot"),
    )
    both.theirs.label_smoothing = smoothing
    both.theirs.loss_types, both.theirs.loss_weights = [loss, "sft"], [1.0, sft_weight]
    mine, my_gradients = both.loss_and_gradients(both.ours)
    other, other_gradients = both.loss_and_gradients(both.theirs)
    assert mine == pytest.approx(other, abs=1e-5)
    assert my_gradients.keys() == other_gradients.keys()
    assert max(gradient.abs().max().item() for gradient in other_gradients.values()) > 1e-3
    for name, gradient in other_gradients.items():
        torch.testing.assert_close(my_gradients[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


def test_metrics_are_those_of_trl_and_lengths(both: Both) -> None:
    both.ours.recipe = DPORecipe(dataset="x", beta=BETA)
    for trainer in (both.ours, both.theirs):
        trainer._metrics["train"].clear()
        trainer._metrics["eval"].clear()
        trainer.model.train()
        trainer.compute_loss(trainer.model, trainer.data_collator(both.rows))
    ours, theirs = both.ours._metrics["train"], both.theirs._metrics["train"]
    assert ours.keys() - theirs.keys() == {"length/chosen", "length/rejected"}
    for name in ours.keys() & theirs.keys() - {"num_tokens"}:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-5), name
    assert ours["length/chosen"] == [sum(len(row["chosen_ids"]) for row in both.rows) / len(both.rows)]


def some_pairs() -> Pairs:
    chosen, rejected = torch.tensor([-3.0, -8.5, -2.0]), torch.tensor([-4.0, -6.0, -9.0])
    reference = torch.tensor([-3.5, -7.0, -2.5]), torch.tensor([-3.0, -7.5, -8.0])
    return Pairs(chosen, rejected, *reference, torch.tensor([2, 5, 1]), torch.tensor([3, 3, 4]))


def test_the_soft_sigmoid_loss_equals_its_formula() -> None:
    """-[p log s(b d) + (1-p) log s(-b d)], by hand."""
    probability = torch.tensor([1.0, 0.7, 0.5])
    deltas = [(-3.0 + 3.5) - (-4.0 + 3.0), (-8.5 + 7.0) - (-6.0 + 7.5), (-2.0 + 2.5) - (-9.0 + 8.0)]
    by_hand = [
        p * math.log1p(math.exp(-BETA * d)) + (1 - p) * math.log1p(math.exp(BETA * d))
        for p, d in zip(probability.tolist(), deltas, strict=True)
    ]
    assert expected(LOSSES["sigmoid"], some_pairs(), probability, BETA).tolist() == pytest.approx(by_hand, abs=1e-6)


def test_the_datasets_probability_reaches_the_loss_unless_labels_are_taken_as_certain(both: Both) -> None:
    probability = [1.0, 0.7, 0.5, 0.9]
    rows = [row | {"probability": p} for row, p in zip(both.rows, probability, strict=True)]
    both.ours.recipe = DPORecipe(dataset="x", beta=BETA)
    batch = both.ours.data_collator(rows)
    soft = both.ours.compute_loss(both.ours.model, dict(batch)).item()
    deltas = both.ours.log_probs(both.ours.model, batch)[0].delta.tolist()
    by_hand = [
        p * math.log1p(math.exp(-BETA * d)) + (1 - p) * math.log1p(math.exp(BETA * d))
        for p, d in zip(probability, deltas, strict=True)
    ]
    assert soft == pytest.approx(sum(by_hand) / 4, abs=1e-5)
    both.ours.recipe = DPORecipe(dataset="x", beta=BETA, soft_labels=False)
    hard = both.ours.compute_loss(both.ours.model, dict(both.ours.data_collator(rows))).item()
    assert hard == pytest.approx(sum(math.log1p(math.exp(-BETA * d)) for d in deltas) / 4, abs=1e-5)


def test_soft_labels_pull_ipo_to_the_target_of_its_paper() -> None:
    """Of a preference p the square is about (2p - 1) / (2 tau), up to a constant (arXiv 2310.12036, section 5.2)."""
    pairs, probability = some_pairs(), torch.tensor([0.9, 0.6, 0.5])
    target = (2 * probability - 1) / (2 * BETA)
    constant = 1 / (4 * BETA**2) - target**2
    loss = expected(LOSSES["ipo"], pairs, probability, BETA)
    torch.testing.assert_close(loss, (pairs.delta_a_token - target) ** 2 + constant)


@pytest.mark.parametrize("loss", [name for name in LOSSES if not name.startswith("aot")])
def test_an_even_label_favours_neither_answer(loss: str) -> None:
    even = torch.full((3,), 0.5)
    smoothing = SMOOTHED.get(loss, 0.0)
    one, other = (
        expected(LOSSES[loss], pairs, even, BETA, smoothing) for pairs in (some_pairs(), some_pairs().swapped)
    )
    torch.testing.assert_close(one, other)


def test_a_certain_label_is_not_spoiled_by_an_opposite_that_overflows() -> None:
    pairs = Pairs(*(torch.tensor([value]) for value in (900.0, -900.0, 0.0, 0.0)), torch.ones(1), torch.ones(1))
    assert torch.isfinite(expected(LOSSES["discopop"], pairs, torch.ones(1), 1.0)).all()


def test_the_recipes_losses_are_those_that_there_are() -> None:
    assert list(get_args(DPORecipe.model_fields["loss"].annotation)) == list(LOSSES)
    assert sft(some_pairs()).item() == pytest.approx((3.0 + 8.5 + 2.0) / 8)


def test_dropout_is_the_adapters_alone_and_never_the_references(both: Both, tiny_model: Path, tmp_path: Path) -> None:
    base = models.load_base(str(tiny_model))
    base.model.layers[0].mlp.act_fn = torch.nn.Sequential(base.model.layers[0].mlp.act_fn, torch.nn.Dropout(0.5))
    model = adapters.add_adapter(base, Lora(r=4, dropout=0.5))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    recipe = DPORecipe(dataset="x")
    tokenizer = models.load_tokenizer(str(tiny_model))
    trainer = make_trainer(recipe, Run(tmp_path), model, tokenizer, Dataset.from_list(both.rows), None)
    trainer.attach(Run(tmp_path), recipe, lambda line: None)
    batch = trainer.data_collator(both.rows)
    del batch["probability"]

    def log_probs(training: bool) -> Pairs:
        trainer.model.train(training)
        return trainer.log_probs(trainer.model, batch)[0]

    one, other = log_probs(True), log_probs(True)
    assert not torch.equal(one.chosen, other.chosen)
    assert torch.equal(one.reference_chosen, other.reference_chosen)
    one, other = log_probs(False), log_probs(False)
    assert torch.equal(one.chosen, other.chosen)
    # The adapter is the only thing that drops out: without it nothing does.
    with trainer.model.disable_adapter():
        one, other = log_probs(True), log_probs(True)
    assert torch.equal(one.chosen, other.chosen)
