"""PPO's mathematics against numpy, written anew and token by token, and its gradients against differences."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from training.ppo import losses

LENGTHS = (5, 1, 4, 2)
WIDTH = 5
CLIP, GAMMA, LAM, BETA = 0.2, 0.97, 0.9, 0.13


@pytest.fixture
def batch() -> dict[str, np.ndarray]:
    """Answers of 5, 1, 4 and 2 tokens; what stands beyond their ends is noise that must not count."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(4, WIDTH)) for name in ("old", "reference", "values", "old_values", "returns")}
    arrays |= {"logps": arrays["old"] + rng.normal(scale=0.3, size=(4, WIDTH)), "advantages": rng.normal(size=(4, 5))}
    mask = np.array([[float(t < length) for t in range(WIDTH)] for length in LENGTHS])
    return arrays | {"mask": mask, "scores": rng.normal(size=4)}


def tensors(batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(array) for name, array in batch.items()}


def mean_over_tokens(term: Callable[[int, int], float]) -> float:
    return sum(term(i, t) for i, length in enumerate(LENGTHS) for t in range(length)) / sum(LENGTHS)


def policy_in_numpy(b: dict[str, np.ndarray]) -> float:
    def term(i: int, t: int) -> float:
        rho = math.exp(b["logps"][i, t] - b["old"][i, t])
        a = b["advantages"][i, t]
        return -min(rho * a, min(max(rho, 1 - CLIP), 1 + CLIP) * a)

    return mean_over_tokens(term)


def value_in_numpy(b: dict[str, np.ndarray]) -> float:
    def term(i: int, t: int) -> float:
        v, old, target = b["values"][i, t], b["old_values"][i, t], b["returns"][i, t]
        kept = min(max(v, old - CLIP), old + CLIP)
        return 0.5 * max((v - target) ** 2, (kept - target) ** 2)

    return mean_over_tokens(term)


def ptx_in_numpy(b: dict[str, np.ndarray]) -> float:
    return mean_over_tokens(lambda i, t: -b["logps"][i, t])


def policy(b: dict[str, torch.Tensor]) -> torch.Tensor:
    return losses.policy_loss(b["logps"], b["old"], b["advantages"], b["mask"], CLIP, b["mask"].sum())


def value(b: dict[str, torch.Tensor]) -> torch.Tensor:
    return losses.value_loss(b["values"], b["old_values"], b["returns"], b["mask"], CLIP, b["mask"].sum())


def ptx(b: dict[str, torch.Tensor]) -> torch.Tensor:
    return losses.pretraining_loss(b["logps"], b["mask"], b["mask"].sum())


@pytest.mark.parametrize(
    ("ours", "theirs", "of"),
    [(policy, policy_in_numpy, "logps"), (value, value_in_numpy, "values"), (ptx, ptx_in_numpy, "logps")],
)
def test_each_loss_and_its_gradient_are_the_papers(
    batch: dict[str, np.ndarray], ours: Any, theirs: Any, of: str
) -> None:
    b = tensors(batch)
    b[of].requires_grad_()
    loss = ours(b)
    loss.backward()
    assert loss.item() == pytest.approx(theirs(batch), abs=1e-10)
    step = 1e-6
    for i in range(4):
        for t in range(WIDTH):
            sides = []
            for sign in (1, -1):
                moved = batch | {of: batch[of].copy()}
                moved[of][i, t] += sign * step
                sides.append(theirs(moved))
            assert b[of].grad is not None
            assert b[of].grad[i, t].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8)


def test_the_batch_reaches_every_branch_of_the_clipped_losses(batch: dict[str, np.ndarray]) -> None:
    inside = batch["mask"] > 0
    ratio = np.exp(batch["logps"] - batch["old"])[inside]
    positive = batch["advantages"][inside] > 0
    for beyond in (ratio > 1 + CLIP, ratio < 1 - CLIP):
        assert (beyond & positive).any()
        assert (beyond & ~positive).any()
    far = np.abs(batch["values"] - batch["old_values"])[inside] > CLIP
    assert far.any()
    assert (~far).any()


def test_parts_of_a_minibatch_add_up_to_the_whole(batch: dict[str, np.ndarray]) -> None:
    b = tensors(batch)
    tokens = b["mask"].sum()
    halves = [{name: tensor[rows] for name, tensor in b.items()} for rows in (slice(0, 1), slice(1, 4))]
    parts = [
        losses.policy_loss(h["logps"], h["old"], h["advantages"], h["mask"], CLIP, tokens)
        + losses.value_loss(h["values"], h["old_values"], h["returns"], h["mask"], CLIP, tokens)
        for h in halves
    ]
    assert sum(parts).item() == pytest.approx((policy(b) + value(b)).item(), abs=1e-12)


def test_rewards_are_the_score_at_the_end_less_the_penalty_of_each_token(batch: dict[str, np.ndarray]) -> None:
    b = tensors(batch)
    rewards = losses.token_rewards(b["scores"], b["logps"], b["reference"], b["mask"], BETA)
    for i, length in enumerate(LENGTHS):
        for t in range(WIDTH):
            expected = -BETA * (batch["logps"][i, t] - batch["reference"][i, t]) if t < length else 0
            expected += batch["scores"][i] if t == length - 1 else 0
            assert rewards[i, t].item() == pytest.approx(expected, abs=1e-12)
    # Summed up, it is InstructGPT's objective of the whole answer.
    log_ratio = ((batch["logps"] - batch["reference"]) * batch["mask"]).sum(1)
    assert rewards.sum(1).numpy() == pytest.approx(batch["scores"] - BETA * log_ratio)


def test_advantages_are_the_discounted_sum_of_temporal_differences(batch: dict[str, np.ndarray]) -> None:
    """GAE's equation 16 as the sum it is written as, instead of by recursion."""
    b = tensors(batch)
    found = losses.advantages(b["returns"], b["values"], b["mask"], GAMMA, LAM).numpy()
    for i, length in enumerate(LENGTHS):
        rewards, values = batch["returns"][i, :length], [*batch["values"][i, :length], 0.0]
        deltas = [rewards[t] + GAMMA * values[t + 1] - values[t] for t in range(length)]
        for t in range(WIDTH):
            expected = sum((GAMMA * LAM) ** (k - t) * deltas[k] for k in range(t, length))
            assert found[i, t] == pytest.approx(expected, abs=1e-12)


def test_with_lambda_one_advantages_are_what_came_less_what_was_expected(batch: dict[str, np.ndarray]) -> None:
    b = tensors(batch)
    found = losses.advantages(b["returns"], b["values"], b["mask"], 1.0, 1.0)
    for i, length in enumerate(LENGTHS):
        for t in range(length):
            came = batch["returns"][i, t:length].sum()
            assert found[i, t].item() == pytest.approx(came - batch["values"][i, t], abs=1e-12)


def test_whitening_counts_the_tokens_of_answers_only(batch: dict[str, np.ndarray]) -> None:
    b = tensors(batch)
    real = batch["advantages"][batch["mask"] > 0]
    whitened = losses.whiten(b["advantages"], b["mask"])
    expected = (real - real.mean()) / real.std(ddof=1)
    assert whitened[b["mask"] > 0].numpy() == pytest.approx(expected, abs=1e-6)
    assert (whitened[b["mask"] == 0] == 0).all()
    kept = losses.whiten(b["advantages"], b["mask"], shift_mean=False)
    assert kept[b["mask"] > 0].numpy() == pytest.approx(expected + real.mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("kl", "expected"), [(6.0, 0.1), (6.6, 0.1 * (1 + 0.1 * 0.064)), (60.0, 0.1 * 1.0128), (0.1, 0.1 * 0.9872)]
)
def test_the_penalty_follows_the_kl_by_a_fifth_of_its_gain_at_most(kl: float, expected: float) -> None:
    assert losses.adapted_coefficient(0.1, kl, target=6.0, rows=64, horizon=1000) == pytest.approx(expected)


def test_logps_entropy_and_divergence_are_those_of_the_distribution() -> None:
    logits = torch.randn(2, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    other = logits + 0.1 * torch.randn(2, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    p, q = (np.exp(x.numpy()) / np.exp(x.numpy()).sum(-1, keepdims=True) for x in (logits, other))
    assert losses.entropy(logits).numpy() == pytest.approx(-(p * np.log(p)).sum(-1), abs=1e-6)
    every = [losses.token_logps(logits, torch.full((2, 3), token)).numpy() for token in range(7)]
    assert np.stack(every, -1) == pytest.approx(np.log(p), abs=1e-6)
    # Over all tokens in proportion to their probability, k3 is the divergence itself.
    estimates = [
        losses.moved(torch.tensor([[math.log(b)]]), torch.tensor([[math.log(a)]]), torch.ones(1, 1)).item()
        for a, b in zip(p[0, 0], q[0, 0], strict=True)
    ]
    assert (p[0, 0] * estimates).sum() == pytest.approx((p[0, 0] * np.log(p[0, 0] / q[0, 0])).sum(), abs=1e-6)


def test_clipped_counts_tokens_beyond_the_range(batch: dict[str, np.ndarray]) -> None:
    b = tensors(batch)
    ratio = np.exp(batch["logps"] - batch["old"])
    beyond = int(((np.abs(ratio - 1) > CLIP) & (batch["mask"] > 0)).sum())
    assert losses.clipped(b["logps"], b["old"], b["mask"], CLIP).item() == beyond > 0
