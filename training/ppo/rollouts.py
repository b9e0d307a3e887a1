"""Answers sampled from the policy with a KV cache, and how they are laid out for a pass over whole rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.ppo import losses

Ids = Sequence[list[int]]

# A smaller batch decodes no slower, but copying the cache costs; so finished rows go once they are so many.
COMPACT_AT = 0.75


@dataclass(frozen=True)
class Answers:
    """What was sampled, row by row; tensors are [rows, tokens], zero after an answer's end.

    Attributes:
        tokens: an answer's token ids, up to and with the EOS if it came.
        logps: of the tokens at the time they were sampled.
        entropies: of the distributions they were sampled from.
    """

    tokens: list[list[int]]
    logps: Tensor
    entropies: Tensor


@torch.no_grad()
def sample(
    model: Any,
    prompts: Ids,
    uniforms: Tensor,
    temperature: float,
    eos: int,
    pad: int,
    at_once: int,
) -> Answers:
    """One answer to each prompt, by inversion of the cumulative distribution at the given numbers.

    An answer depends on its own row of numbers alone, not on which rows are beside it: batches can be cut, sorted,
    compacted and shared out among processes without changing what is sampled.

    Args:
        model: a causal language model in the role that is to answer.
        uniforms: in [0, 1), one a row and token that may be sampled.
        at_once: rows that are decoded together.
    """
    tokens: list[list[int]] = [[] for _ in prompts]
    logps, entropies = torch.zeros_like(uniforms), torch.zeros_like(uniforms)
    # Rows of like length together need little padding.
    for rows in torch.tensor([len(prompt) for prompt in prompts]).argsort(stable=True).split(at_once):
        part = _sample(model, [prompts[row] for row in rows], uniforms[rows], temperature, eos, pad)
        logps[rows], entropies[rows] = part.logps, part.entropies
        for row, answer in zip(rows.tolist(), part.tokens, strict=True):
            tokens[row] = answer
    return Answers(tokens, logps, entropies)


def _sample(model: Any, prompts: Ids, uniforms: Tensor, temperature: float, eos: int, pad: int) -> Answers:
    from transformers import DynamicCache

    rows, limit = uniforms.shape
    device = uniforms.device
    ids, attention = left_padded(prompts, pad, device)
    positions = attention.sum(1)
    cache = DynamicCache(config=model.config)
    tokens = torch.full((rows, limit), pad, device=device)
    logps, entropies = torch.zeros(rows, limit, device=device), torch.zeros(rows, limit, device=device)
    alive = torch.arange(rows, device=device)
    running = torch.ones(rows, dtype=torch.bool, device=device)
    inputs = {"input_ids": ids, "position_ids": (attention.cumsum(1) - 1).clamp(min=0)}
    for step in range(limit):
        logits = model(
            **inputs, attention_mask=attention, past_key_values=cache, use_cache=True, logits_to_keep=1
        ).logits[:, -1:]
        logits = logits.float() / temperature
        chosen = _invert(logits[:, 0].softmax(-1), uniforms[alive, step])
        now = alive[running]
        tokens[now, step] = chosen[running]
        logps[now, step] = losses.token_logps(logits, chosen[:, None])[running, 0]
        entropies[now, step] = losses.entropy(logits)[running, 0]
        running &= chosen != eos
        left = int(running.sum())
        if not left:
            break
        if left <= COMPACT_AT * len(alive):
            kept = running.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            alive, chosen, attention, positions = alive[kept], chosen[kept], attention[kept], positions[kept]
            running = running[kept]
        inputs = {"input_ids": chosen[:, None], "position_ids": positions[:, None]}
        attention = torch.cat([attention, attention.new_ones(len(alive), 1)], dim=1)
        positions = positions + 1
    return Answers([_until(eos, row) for row in tokens.tolist()], logps, entropies)


@dataclass(frozen=True)
class Batch:
    """Prompts with their answers: [padding | prompt | answer | padding], answers of all rows beginning in one column.

    Attributes:
        inputs: what a model takes.
        answers, mask: [rows, tokens] of the longest answer.
    """

    inputs: dict[str, Tensor]
    answers: Tensor
    mask: Tensor

    @property
    def width(self) -> int:
        return self.answers.shape[1]


def lay_out(prompts: Ids, answers: Ids, pad: int, device: torch.device) -> Batch:
    """Only as wide as the longest prompt and the longest answer of these rows."""
    ids, attention = left_padded(prompts, pad, device)
    width = max(map(len, answers))
    answer_ids = torch.tensor([[*answer, *[pad] * (width - len(answer))] for answer in answers], device=device)
    lengths = torch.tensor([len(answer) for answer in answers], device=device)
    mask = torch.arange(width, device=device) < lengths[:, None]
    attention = torch.cat([attention, mask.long()], dim=1)
    inputs = {
        "input_ids": torch.cat([ids, answer_ids], dim=1),
        "attention_mask": attention,
        "position_ids": (attention.cumsum(1) - 1).clamp(min=0),
    }
    return Batch(inputs, answer_ids, mask.float())


def left_padded(rows: Ids, pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, [rows, longest]."""
    width = max(map(len, rows))
    ids = torch.tensor([[*[pad] * (width - len(row)), *row] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, (torch.arange(width, device=device) >= width - lengths[:, None]).long()


def _invert(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    cumulative = probabilities.cumsum(-1)
    # Rounded sums end a little beside 1.
    thresholds = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, thresholds, right=True)[:, 0].clamp(max=probabilities.shape[-1] - 1)


def _until(eos: int, row: list[int]) -> list[int]:
    return row[: row.index(eos) + 1] if eos in row else row
