"""The losses of preference optimisation, as functions of log-probabilities and of nothing else.

Each takes a batch of pairs, beta (how strongly the policy is held to its reference) and the label smoothing, and gives
one value a pair, shape (pairs,). All logarithms are natural.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid, relu


@dataclass(frozen=True)
class Pairs:
    """What policy and reference make of a batch of pairs, each of shape (pairs,).

    Args:
        chosen, rejected: log-probability of the answer by the policy, summed over its tokens.
        reference_chosen, reference_rejected: by the reference.
        chosen_tokens, rejected_tokens: how many tokens the answer has, its EOS among them.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    reference_chosen: torch.Tensor
    reference_rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor

    @property
    def chosen_ratio(self) -> torch.Tensor:
        """log(policy / reference) of the chosen answer: its reward, in units of beta."""
        return self.chosen - self.reference_chosen

    @property
    def rejected_ratio(self) -> torch.Tensor:
        return self.rejected - self.reference_rejected

    @property
    def delta(self) -> torch.Tensor:
        return self.chosen_ratio - self.rejected_ratio

    @property
    def delta_a_token(self) -> torch.Tensor:
        """The difference of the ratios, each divided by its answer's length, so that long answers weigh no more."""
        return self.chosen_ratio / self.chosen_tokens - self.rejected_ratio / self.rejected_tokens

    @property
    def swapped(self) -> "Pairs":
        """The same pairs with opposite labels."""
        return Pairs(
            self.rejected,
            self.chosen,
            self.reference_rejected,
            self.reference_chosen,
            self.rejected_tokens,
            self.chosen_tokens,
        )


Loss = Callable[[Pairs, float, float], torch.Tensor]


def expected(loss: Loss, pairs: Pairs, probability: torch.Tensor, beta: float, smoothing: float = 0.0) -> torch.Tensor:
    """A loss under labels that are right with the pair's probability; of the sigmoid loss this is conservative DPO.

    p L(chosen, rejected) + (1 - p) L(rejected, chosen): for the sigmoid loss -[p log s(b d) + (1 - p) log s(-b d)]
    (Mitchell, "A note on DPO with noisy preferences", 2023, with a p of each pair).

    Args:
        probability: that the chosen answer is the better one, shape (pairs,).
    """
    as_labelled = loss(pairs, beta, smoothing)
    # The opposite of a certain label is not asked, since zero times a loss that overflows is no number.
    if bool((probability == 1).all()):
        return as_labelled
    return probability * as_labelled + (1 - probability) * loss(pairs.swapped, beta, smoothing)


def sft(pairs: Pairs) -> torch.Tensor:
    """Mean negative log-likelihood of a token of the chosen answers; one value for the batch."""
    return -pairs.chosen.sum() / pairs.chosen_tokens.sum()


def odds_ratio(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """ORPO's contrast: the odds of the chosen answer against those of the rejected one (arXiv 2403.07691, equation 7).

    Args:
        chosen, rejected: mean log-probability of the answer's tokens, shape (pairs,).
    """

    def log_odds(logp: torch.Tensor) -> torch.Tensor:
        # log(1 - exp(x)), of a probability near one too.
        return logp - torch.log(-torch.expm1(logp))

    return -logsigmoid(log_odds(chosen) - log_odds(rejected))


def sigmoid(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """DPO (arXiv 2305.18290, equation 7)."""
    return -logsigmoid(beta * pairs.delta)


def sigmoid_norm(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """DPO on log-ratios a token (Tulu 3, arXiv 2411.15124)."""
    return -logsigmoid(beta * pairs.delta_a_token)


def hinge(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """RSO's hinge (arXiv 2309.06657)."""
    return relu(1 - beta * pairs.delta)


def ipo(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """IPO (arXiv 2310.12036, equation 17), on log-ratios a token as its authors have it."""
    return (pairs.delta_a_token - 1 / (2 * beta)) ** 2


def robust(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """Unbiased where a share `smoothing` of all labels is flipped (arXiv 2403.00409)."""
    right, wrong = logsigmoid(beta * pairs.delta), logsigmoid(-beta * pairs.delta)
    return -((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing)


def exo_pair(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """EXO: the reverse KL from the policy's choice to the smoothed label (arXiv 2402.00856, equation 16)."""
    right, wrong = logsigmoid(beta * pairs.delta), logsigmoid(-beta * pairs.delta)
    label = torch.tensor([1 - smoothing, smoothing], device=right.device).log()
    return right.exp() * (right - label[0]) + wrong.exp() * (wrong - label[1])


def nca_pair(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """NCA on pairs (arXiv 2402.05369)."""
    chosen, rejected = beta * pairs.chosen_ratio, beta * pairs.rejected_ratio
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def bco_pair(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """BCO on pairs, without its moving reward shift (arXiv 2404.04656)."""
    return -logsigmoid(beta * pairs.chosen_ratio) - logsigmoid(-beta * pairs.rejected_ratio)


def sppo_hard(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """SPPO with the winner's probability at one (arXiv 2405.00675, equation 4.7)."""
    return (pairs.chosen_ratio - 0.5 / beta) ** 2 + (pairs.rejected_ratio + 0.5 / beta) ** 2


def aot(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """AOT: chosen over rejected as distributions in the batch, against the reference's (arXiv 2406.05882)."""
    policy, reference = pairs.chosen - pairs.rejected, pairs.reference_chosen - pairs.reference_rejected
    return _smoothed(beta * (policy.sort().values - reference.sort().values), smoothing)


def aot_unpaired(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """AOT for answers that need not be to the same prompts (arXiv 2406.05882)."""
    return _smoothed(beta * (pairs.chosen_ratio.sort().values - pairs.rejected_ratio.sort().values), smoothing)


def apo_zero(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """APO where the chosen answers are better than the model's own (arXiv 2408.06266, equation 7)."""
    return 1 - torch.sigmoid(beta * pairs.chosen_ratio) + torch.sigmoid(beta * pairs.rejected_ratio)


def apo_down(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """APO where the model's own answers are better than the chosen ones (arXiv 2408.06266, equation 8)."""
    return torch.sigmoid(beta * pairs.chosen_ratio) + 1 - torch.sigmoid(beta * pairs.delta)


def discopop(pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """DiscoPOP: a blend of the logistic and the exponential loss (arXiv 2406.08414, equation 5)."""
    logits = beta * pairs.delta
    blend = torch.sigmoid(logits / DISCOPOP_TAU)
    return -logsigmoid(logits) * (1 - blend) + torch.exp(-logits) * blend


def _smoothed(logits: torch.Tensor, smoothing: float) -> torch.Tensor:
    return -(1 - smoothing) * logsigmoid(logits) - smoothing * logsigmoid(-logits)


# The paper's value.
DISCOPOP_TAU = 0.05
LOSSES: dict[str, Loss] = {
    loss.__name__: loss
    for loss in (
        sigmoid,
        sigmoid_norm,
        hinge,
        ipo,
        robust,
        exo_pair,
        nca_pair,
        bco_pair,
        sppo_hard,
        aot,
        aot_unpaired,
        apo_zero,
        apo_down,
        discopop,
    )
}
