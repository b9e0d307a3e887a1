"""What a step of PPO has sampled, and what it learns from it."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.ppo import losses
from training.ppo.rollouts import Ids
from training.recipe import PPORecipe


@dataclass(frozen=True)
class Rollouts:
    """Answers and what all roles say of them; tensors are [rows, max_new_tokens], scores [rows]."""

    prompts: Ids
    answers: Ids
    eos: int
    logps: Tensor
    reference: Tensor
    values: Tensor
    scores: Tensor
    entropies: Tensor

    @property
    def lengths(self) -> Tensor:
        return torch.tensor([len(answer) for answer in self.answers], device=self.scores.device)

    @property
    def mask(self) -> Tensor:
        return (torch.arange(self.logps.shape[1], device=self.scores.device) < self.lengths[:, None]).float()

    @property
    def ended(self) -> Tensor:
        """1.0 where an answer came to its EOS."""
        return torch.tensor([float(answer[-1] == self.eos) for answer in self.answers], device=self.scores.device)

    def gathered(self, accelerator: Any) -> "Rollouts":
        """Those of all processes, in the order in which one process would have had them."""
        from accelerate.utils import gather_object

        tensors = accelerator.gather((self.logps, self.reference, self.values, self.scores, self.entropies))
        return Rollouts(gather_object(list(self.prompts)), gather_object(list(self.answers)), self.eos, *tensors)


@dataclass(frozen=True)
class Experience:
    """What the updates of one step need; tensors are [rows, max_new_tokens]."""

    prompts: Ids
    answers: Ids
    mask: Tensor
    logps: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class Scale(NamedTuple):
    """Makes scores comparable with the penalties: mean 0 and deviation 1 before training (arXiv 1909.08593)."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, scores: Tensor) -> "Scale":
        deviation = scores.std(correction=0).item()
        return cls(scores.mean().item(), deviation if deviation > 1e-6 else 1.0)


def experience(rollouts: Rollouts, recipe: PPORecipe, scale: Scale, kl_coefficient: float) -> Experience:
    """Rewards by token, and from them advantages and returns."""
    scores = (rollouts.scores - scale.mean) / scale.deviation
    scores = scores - recipe.missing_eos_penalty * (1 - rollouts.ended)
    mask = rollouts.mask
    rewards = losses.token_rewards(scores, rollouts.logps, rollouts.reference, mask, kl_coefficient)
    if recipe.whiten_rewards:
        rewards = losses.whiten(rewards, mask, shift_mean=False)
    advantages = losses.advantages(rewards, rollouts.values, mask, recipe.gamma, recipe.lam)
    return Experience(
        prompts=rollouts.prompts,
        answers=rollouts.answers,
        mask=mask,
        logps=rollouts.logps,
        values=rollouts.values,
        # Returns keep their size, so that the value function learns what the rewards are.
        returns=advantages + rollouts.values,
        advantages=losses.whiten(advantages, mask),
    )


def measured(rollouts: Rollouts) -> dict[str, float]:
    """What a step logs of its answers; KL is that of whole answers to the reference, in nats."""
    mask, lengths, scores = rollouts.mask, rollouts.lengths.float(), rollouts.scores
    return {
        "reward/mean": scores.mean().item(),
        "reward/std": scores.std(correction=0).item(),
        "reward/length_correlation": _correlation(scores, lengths),
        "kl": ((rollouts.logps - rollouts.reference) * mask).sum(1).mean().item(),
        "entropy": (rollouts.entropies.sum() / mask.sum()).item(),
        "length/mean": lengths.mean().item(),
        "eos_share": rollouts.ended.mean().item(),
    }


def _correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's; 0 where one of the two does not vary."""
    a, b = a - a.mean(), b - b.mean()
    scale = (a.norm() * b.norm()).item()
    return (a @ b).item() / scale if scale > 0 else 0.0
