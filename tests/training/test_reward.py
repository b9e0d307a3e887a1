"""The reward model's loss against TRL's and the papers' formulas, its batches, and what it says of itself."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import set_seed
from trl import RewardConfig, RewardTrainer

from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import models
from training.batches import comparison_rows
from training.launch import train
from training.recipe import RewardRecipe
from training.reward import Trainer, bradley_terry, collator, make_trainer, prompt_weights
from training.reward_quality import Judged, longer_is_better, quality
from training.runs import Run

PROMPT = [{"role": "user", "content": "2 + 2?"}]


def pair(prompt: str, chosen: str, rejected: str, probability: float = 1.0) -> dict[str, Any]:
    message = {"role": "user", "content": prompt}
    return {"prompt": [message], "chosen": chosen, "rejected": rejected, "probability": probability}


def ours(model: Any, tokenizer: Any, rows: list[dict[str, Any]], folder: Path, **keys: Any) -> Trainer:
    recipe = RewardRecipe(dataset="x", **keys)
    trainer = make_trainer(recipe, Run(folder), model, tokenizer, Dataset.from_list(rows), None)
    trainer.attach(Run(folder), recipe, lambda line: None)
    return trainer


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize(("margin", "centring"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.05), (0.7, 0.05)])
def test_loss_and_gradients_equal_trls_on_the_same_batch(
    tiny_model: Path, tmp_path: Path, margin: float, centring: float
) -> None:
    set_seed(0)
    model = models.load_base(str(tiny_model), head="score")
    tokenizer = models.load_tokenizer(str(tiny_model))
    # Two prompts of three answers each, which the pairs of TRL's batch repeat.
    pairs = [
        pair(prompt, *answers)
        for prompt in ("2 + 2?", "the colour of the sky")
        for answers in (("four", "five"), ("four", "a great many"), ("five", "a great many"))
    ]
    rows, _ = comparison_rows(tokenizer, pairs, 100)
    assert [len(row["answers"]) for row in rows] == [3, 3]
    trainer = ours(model, tokenizer, rows, tmp_path, margin=margin, centring=centring)
    batch = trainer.data_collator(rows)
    assert len(batch["input_ids"]) == 6
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    mine = gradients(model)

    flat = [
        {
            "chosen_ids": row["prompt_ids"] + row["answers"][better],
            "rejected_ids": row["prompt_ids"] + row["answers"][worse],
            "margin": margin,
        }
        for row in rows
        for better, worse in zip(row["better"], row["worse"], strict=True)
    ]
    keys: dict[str, Any] = {"bf16": False, "use_cpu": True, "report_to": "none", "gradient_checkpointing": False}
    theirs = RewardTrainer(
        model=model,
        args=RewardConfig(output_dir=str(tmp_path), center_rewards_coefficient=centring or None, **keys),
        train_dataset=Dataset.from_list(flat),
        processing_class=tokenizer,
    )
    expected = theirs.compute_loss(model, theirs.data_collator(flat))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    reference = gradients(model)
    assert mine.keys() == reference.keys()
    assert "score.weight" in mine
    for name, gradient in reference.items():
        torch.testing.assert_close(mine[name], gradient, atol=1e-5, rtol=0, msg=name)


def test_an_unsure_label_counts_for_both_answers() -> None:
    """-[p log s(d) + (1-p) log s(-d)] by hand; with a margin, whoever is preferred must win by it."""
    better, worse = torch.tensor([1.2, -0.3]), torch.tensor([0.4, 0.5])
    probability, weight = torch.tensor([0.8, 0.5]), torch.tensor([0.25, 0.75])

    def log_sigmoid(x: float) -> float:
        return -math.log(1 + math.exp(-x))

    by_hand = 0.25 * -(0.8 * log_sigmoid(0.8) + 0.2 * log_sigmoid(-0.8))
    by_hand += 0.75 * -(0.5 * log_sigmoid(-0.8) + 0.5 * log_sigmoid(0.8))
    assert bradley_terry(better, worse, probability, weight).item() == pytest.approx(by_hand, abs=1e-6)
    # Of certainty 0.8 a margin of 2 * 0.8 - 1 = 0.6 is left, of 0.5 none.
    by_hand += 0.25 * -(0.8 * log_sigmoid(0.2) + 0.2 * log_sigmoid(-1.4))
    by_hand -= 0.25 * -(0.8 * log_sigmoid(0.8) + 0.2 * log_sigmoid(-0.8))
    assert bradley_terry(better, worse, probability, weight, margin=1.0).item() == pytest.approx(by_hand, abs=1e-6)


def test_labels_are_certain_only_where_the_recipe_says_so(tiny_model: Path, tmp_path: Path) -> None:
    set_seed(0)
    model = models.load_base(str(tiny_model), head="score")
    tokenizer = models.load_tokenizer(str(tiny_model))
    losses = {}
    for probability in (1.0, 0.6):
        rows, _ = comparison_rows(tokenizer, [pair("2 + 2?", "four", "five", probability)], 100)
        for soft in (True, False):
            trainer = ours(model, tokenizer, rows, tmp_path, soft_labels=soft)
            losses[probability, soft] = trainer.compute_loss(model, trainer.data_collator(rows)).item()
    assert losses[0.6, False] == losses[1.0, False] == losses[1.0, True] != losses[0.6, True]


def test_a_prompt_counts_once_however_many_pairs_it_has() -> None:
    weights = prompt_weights(torch.tensor([1, 3, 6]))
    assert weights.tolist() == pytest.approx([1 / 3] + [1 / 9] * 3 + [1 / 18] * 6)


def test_a_prompts_pairs_share_its_answers(tiny_model: Path) -> None:
    tokenizer = models.load_tokenizer(str(tiny_model))
    pairs = [pair("a", "x", "yy"), pair("b", "x", "z", 0.7), pair("a", "zzz", "x"), pair("long " * 60, "x", "y")]
    rows, lengths = comparison_rows(tokenizer, pairs, 30)
    assert (lengths.rows, lengths.dropped, lengths.truncated) == (4, 1, 0)
    first, second = rows
    assert [tokenizer.decode(answer) for answer in first["answers"]] == ["x<|end|>", "yy<|end|>", "zzz<|end|>"]
    assert (first["better"], first["worse"], second["probability"]) == ([0, 2], [1, 0], [0.7])
    batch = collator(tokenizer.pad_token_id)(rows)
    assert (batch["better"].tolist(), batch["worse"].tolist()) == ([0, 2, 3], [1, 0, 4])
    # The last token that is no padding, which the score is read at, is the EOS.
    ends = batch["attention_mask"].sum(1) - 1
    assert batch["input_ids"][range(5), ends].tolist() == [tokenizer.eos_token_id] * 5


def test_the_score_does_not_depend_on_the_other_answers_of_a_batch(tiny_model: Path) -> None:
    set_seed(0)
    model = models.load_base(str(tiny_model), head="score").eval()
    tokenizer = models.load_tokenizer(str(tiny_model))
    model.config.pad_token_id = tokenizer.pad_token_id
    rows, _ = comparison_rows(tokenizer, [pair("a", "x", "yy " * 20), pair("bbb", "x y z", "z")], 200)
    with torch.no_grad():
        batch = collator(tokenizer.pad_token_id)(rows)
        together = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.flatten()
        alone = [
            model(input_ids=torch.tensor([row["prompt_ids"] + answer])).logits.item()
            for row in rows
            for answer in row["answers"]
        ]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)


def test_quality_is_told_beside_a_baseline_of_lengths() -> None:
    judged = [
        Judged(rewards=[2.0, 1.0], lengths=[9, 3], pairs=[(0, 1, 1.0)]),
        Judged(rewards=[0.0, 1.0, 3.0], lengths=[2, 2, 8], pairs=[(1, 0, 0.9), (0, 2, 0.7), (1, 2, 0.5)]),
    ]
    found = quality(judged, longer_wins=True)
    assert found["n"] == 3
    assert found["accuracy"] == pytest.approx(2 / 3)
    # Wilson's interval of 2 of 3, by his formula.
    z, n, share = 1.959964, 3, 2 / 3
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx((centre - half, centre + half))
    assert found["length_accuracy"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert quality(judged, longer_wins=False)["length_accuracy"] == pytest.approx((0 + 0.5 + 1) / 3)
    assert (found["accuracy_longer"], found["accuracy_shorter"]) == (1.0, 0.0)
    assert found["margin"] == pytest.approx((1 + 1 - 3) / 3)
    rewards, lengths = [2.0, 1.0, 0.0, 1.0, 3.0], [9, 3, 2, 2, 8]
    assert found["length_correlation"] == pytest.approx(torch.corrcoef(torch.tensor([rewards, lengths]))[0, 1].item())
    assert "length_correlation" not in quality([Judged([1.0, 0.0], [3, 3], [(0, 1, 1.0)])], True)


def test_the_baseline_takes_the_length_that_training_pairs_favour() -> None:
    longer = {"answers": [[1, 2, 3], [1]], "better": [0], "worse": [1]}
    shorter = {"answers": [[1, 2, 3], [1]], "better": [1], "worse": [0]}
    assert longer_is_better([longer, longer, shorter])
    assert not longer_is_better([longer, shorter, shorter])


def test_a_run_learns_which_answer_is_better_and_says_how_well(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    keys = ["dataset=sums", f"model={tiny_model}", "max_steps=30", "batch_size=27"]
    keys += ["learning_rate=1e-2", "log_every=1", "validate_every=30"]
    run = train(workspace, "reward", keys, lambda line: None)
    lines = run.metrics()
    steps = [line for line in lines if "loss" in line]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=0.4)
    assert steps[-1]["loss"] < 0.5
    assert {"accuracy", "margin", "min_reward", "mean_reward", "max_reward", "num_tokens"} <= steps[-1].keys()
    (last,) = [line for line in lines if "eval_loss" in line][-1:]
    assert last["eval_n"] == len(small_dataset.pairs("validation"))
    assert last["eval_accuracy_low"] <= last["eval_accuracy"] <= last["eval_accuracy_high"]
    assert {"eval_length_accuracy", "eval_margin", "eval_length_correlation"} <= last.keys()
