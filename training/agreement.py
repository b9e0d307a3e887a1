"""Whether two forms of a model say the same: their next-token distributions on real prompts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from feedback.versions import DatasetVersion
from training.batches import encode

if TYPE_CHECKING:
    import torch

PROMPTS = 32
# Of each answer, as the table of all of them must fit into memory beside a model.
TOKENS = 16


@dataclass(frozen=True)
class Agreement:
    """How far one form's distributions are from another's.

    Args:
        positions: tokens of answers at which they were compared.
        kl: mean Kullback-Leibler divergence of the other form from the first, in nats.
        changed: share of positions whose most probable token is another one.
    """

    positions: int
    kl: float
    changed: float

    def __str__(self) -> str:
        return (
            f"mean KL {self.kl:.2g} nats, the most probable token differs at {self.changed:.1%} "
            f"of {self.positions} positions"
        )


def probes(version: DatasetVersion, tokenizer: Any, max_length: int) -> list[tuple[list[int], int]]:
    """Prompts with their answers as token ids, held-out ones first, each with the number of the answer's tokens."""
    encoded = (encode(tokenizer, prompt, answer) for prompt, answer in _rows(version))
    cut = ((prompt, answer[:TOKENS]) for prompt, answer in encoded if len(prompt) + TOKENS <= max_length)
    return [(prompt + answer, len(answer)) for prompt, answer in islice(cut, PROMPTS)]


def _rows(version: DatasetVersion) -> Iterator[tuple[Any, str]]:
    for split in ("test", "validation", "train"):
        yield from ((row["prompt"], row["chosen"]) for row in version.pairs(split))
        yield from ((row["prompt"], row["completion"]) for row in version.demonstrations(split))


def log_probabilities(model: Any, rows: Sequence[tuple[list[int], int]]) -> "torch.Tensor":
    """Log-probabilities of every token at every position of the answers, shape (positions, vocabulary), fp32."""
    import torch

    found = []
    with torch.no_grad():
        for ids, answer in rows:
            inputs = torch.tensor([ids], device=model.device)
            logits = model(input_ids=inputs, use_cache=False, logits_to_keep=answer + 1).logits[0, :-1]
            found.append(logits.float().log_softmax(-1).cpu())
    return torch.cat(found)


def compare(first: "torch.Tensor", other: "torch.Tensor") -> Agreement:
    """How far the other form's log-probabilities, shape (positions, vocabulary), are from the first one's."""
    kl = (first.exp() * (first - other)).sum(-1).clamp(min=0).mean().item()
    changed = (first.argmax(-1) != other.argmax(-1)).float().mean().item()
    return Agreement(len(first), kl, changed)
