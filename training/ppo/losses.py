"""The mathematics of PPO for language models, as functions of log-probabilities, values and scores.

The objective is InstructGPT's (arXiv 2203.02155, equation 2), maximised by PPO's clipped surrogate (arXiv 1707.06347)
on the advantages of generalised advantage estimation (arXiv 1506.02438), with the adaptive penalty of Ziegler et al.
(arXiv 1909.08593). Where these are silent, the N+ implementation details of RLHF with PPO (arXiv 2403.17031).

Every tensor is [rows, tokens] over the tokens of the answers, its mask 1.0 up to and with the EOS, then 0.0; scores are
[rows]. `tokens` is the number of tokens that a loss is the mean of: with accumulated gradients, or several processes,
it is that of the whole minibatch, so that the parts add up to the mean.
"""

import torch
from torch import Tensor


def token_rewards(scores: Tensor, logps: Tensor, reference: Tensor, mask: Tensor, kl_coefficient: float) -> Tensor:
    """r(x, y) - beta log(pi(y|x) / pi_SFT(y|x)) (InstructGPT, equation 2), each token with its share of the penalty."""
    rewards = -kl_coefficient * (logps - reference) * mask
    last = mask.sum(1).long() - 1
    return rewards.index_put((torch.arange(len(rewards), device=last.device), last), scores, accumulate=True)


def advantages(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """A_t = delta_t + gamma lambda A_(t+1), delta_t = r_t + gamma V_(t+1) - V_t (GAE, equation 16; PPO, 11 and 12).

    After an answer's last token there is nothing: the value there is zero.
    """
    rewards, values = rewards * mask, values * mask
    following = torch.zeros_like(values[:, 0])
    next_value, found = following, []
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = (delta + gamma * lam * following) * mask[:, t]
        next_value = values[:, t]
        found.append(following)
    return torch.stack(found[::-1], dim=1)


def policy_loss(logps: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float, tokens: Tensor) -> Tensor:
    """-min(rho A, clip(rho, 1 - epsilon, 1 + epsilon) A) with rho = pi / pi_old (PPO, equation 7)."""
    ratio = (logps - old).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -(surrogate * mask).sum() / tokens


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float, tokens: Tensor) -> Tensor:
    """(V - R)^2 / 2, the larger of it and of the same with V kept within epsilon of what it was (arXiv 2403.17031)."""
    kept = old + (values - old).clamp(-clip, clip)
    errors = torch.maximum((values - returns).square(), (kept - returns).square())
    return 0.5 * (errors * mask).sum() / tokens


def pretraining_loss(logps: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
    """-E log pi on demonstrations, which `ptx_weight` weighs (InstructGPT, equation 2, the gamma term)."""
    return -(logps * mask).sum() / tokens


def adapted_coefficient(coefficient: float, kl: float, target: float, rows: int, horizon: float) -> float:
    """beta (1 + K e), e = clip(KL / target - 1, -0.2, 0.2) (Ziegler et al., section 2.2); K is rows / horizon."""
    error = min(0.2, max(-0.2, kl / target - 1))
    return coefficient * (1 + error * rows / horizon)


def whiten(x: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Scaled to deviation 1 over all tokens, and to mean 0 unless the mean is to stay."""
    count = mask.sum()
    mean = (x * mask).sum() / count
    variance = ((x - mean).square() * mask).sum() / (count - 1).clamp(min=1)
    whitened = (x - mean) * (variance + 1e-8).rsqrt()
    return (whitened if shift_mean else whitened + mean) * mask


def token_logps(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities of `ids` [rows, tokens] under `logits` [rows, tokens, vocabulary]."""
    logits = logits.float()
    return logits.gather(-1, ids[..., None])[..., 0] - logits.logsumexp(-1)


def entropy(logits: Tensor) -> Tensor:
    """In nats, of each token's distribution."""
    logits = logits.float()
    return logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)


def moved(logps: Tensor, old: Tensor, mask: Tensor) -> Tensor:
    """Sum over tokens of rho - 1 - log rho, whose mean under pi_old is KL(pi_old, pi) (Schulman's k3)."""
    log_ratio = logps - old
    return ((log_ratio.exp() - 1 - log_ratio) * mask).sum()


def clipped(logps: Tensor, old: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Number of tokens whose rho lies outside the clip range."""
    return ((((logps - old).exp() - 1).abs() > clip) * mask).sum()
