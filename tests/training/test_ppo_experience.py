"""What a step learns from: scores scaled and penalised, rewards by token, and the figures that are logged of it."""

import pytest
import torch

from training.ppo.experience import Rollouts, Scale, experience, measured
from training.recipe import PPORecipe

EOS = 1
RECIPE = PPORecipe(dataset="d", reward="m:f", missing_eos_penalty=0.5, lam=1.0)


@pytest.fixture
def rollouts() -> Rollouts:
    """Three answers, the second cut off before its end; zero beyond an answer's tokens, as sampling leaves it."""
    mask = torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    noise = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0)) * mask
    return Rollouts(
        prompts=[[5], [6], [7]],
        answers=[[9, EOS], [9, 9, 9, 9], [EOS]],
        eos=EOS,
        logps=noise[0],
        reference=noise[1],
        values=noise[2],
        scores=torch.tensor([2.0, 6.0, 4.0]),
        entropies=torch.ones(3, 4) * mask,
    )


def test_returns_are_the_scaled_score_less_the_penalties(rollouts: Rollouts) -> None:
    scale = Scale.of(rollouts.scores)
    assert scale == pytest.approx((4.0, (8 / 3) ** 0.5))
    found = experience(rollouts, RECIPE, scale, kl_coefficient=0.3)
    log_ratio = (rollouts.logps - rollouts.reference).sum(1)
    expected = (rollouts.scores - 4) / (8 / 3) ** 0.5 - torch.tensor([0.0, 0.5, 0.0]) - 0.3 * log_ratio
    assert torch.allclose(found.returns[:, 0], expected, atol=1e-6)
    advantages = (found.returns - rollouts.values)[found.mask > 0]
    whitened = (advantages - advantages.mean()) / advantages.std()
    assert torch.allclose(found.advantages[found.mask > 0], whitened, atol=1e-5)


def test_whitened_rewards_keep_their_mean(rollouts: Rollouts) -> None:
    plain, whitened = (
        experience(rollouts, RECIPE.model_copy(update={"whiten_rewards": on}), Scale(0.0, 1.0), 0.3)
        for on in (False, True)
    )
    rewards = [
        torch.cat([e.returns[i, :n].diff(append=torch.zeros(1)) for i, n in enumerate((2, 4, 1))])
        for e in (plain, whitened)
    ]
    assert rewards[0].std() != pytest.approx(1, abs=0.1)
    assert rewards[1].std().item() == pytest.approx(1, abs=1e-5)
    assert rewards[1].mean().item() == pytest.approx(rewards[0].mean().item(), abs=1e-5)


def test_scores_that_do_not_differ_are_only_shifted() -> None:
    assert Scale.of(torch.tensor([3.0, 3.0])) == (3.0, 1.0)


def test_what_is_logged_of_the_answers(rollouts: Rollouts) -> None:
    figures = measured(rollouts)
    assert figures["reward/mean"] == 4
    assert figures["length/mean"] == pytest.approx(7 / 3)
    assert figures["eos_share"] == pytest.approx(2 / 3)
    assert figures["entropy"] == 1
    assert figures["kl"] == pytest.approx((rollouts.logps - rollouts.reference).sum().item() / 3, abs=1e-6)
    expected = torch.corrcoef(torch.tensor([[2.0, 6, 4], [2, 4, 1]]))[0, 1].item()
    assert figures["reward/length_correlation"] == pytest.approx(expected, abs=1e-6)
