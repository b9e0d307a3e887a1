"""lm-eval's model of transformers, made to read what answers have in common once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM

from feedback.errors import UserError

if TYPE_CHECKING:
    import torch

# A beginning of fewer tokens is read again sooner than it is copied.
SHORTEST_BEGINNING = 16

Tokens = tuple[int, ...]


class SharedPrompts(HFLM):
    """HFLM, whose log-likelihoods cost one row a prompt: [prompt | answer | answer | ...].

    Answers see their prompt and themselves only, at the positions where they would stand alone. What all prompts of a
    batch begin with, as the examples of a benchmark, is read once and its keys and values lent to every row. The
    figures are those of HFLM up to rounding, by which HFLM's own depend on its batches.
    """

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        if not self._sees_by_mask():
            return list(super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs))
        rows: dict[Tokens, list[tuple[int, Tokens]]] = {}
        for place, ((_, text), prompt, answer) in enumerate(requests):
            if len(answer) > self.max_length:
                raise UserError(
                    f"answer {text[:40]!r}...: {len(answer)} tokens, more than the {self.max_length} that the model "
                    "can read; shorten it or leave it out"
                )
            # As HFLM cuts what is too long: from the left, the last token being predicted only.
            room = self.max_length + 1 - len(answer)
            rows.setdefault(tuple(prompt[-room:]), []).append((place, tuple(answer)))
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        longest_first = sorted(rows.items(), key=lambda row: (-len(row[0]), row[0]))
        size = override_bs or self.batch_size
        for start in range(0, len(rows), size):
            self._score(longest_first[start : start + size], found)
        return found

    def _sees_by_mask(self) -> bool:
        """Whether its attention is given by a mask and its positions by numbers, on all layers alike."""
        config = self.model.config.get_text_config()
        return (
            self.backend == "causal"
            and config._attn_implementation in ("sdpa", "eager")
            and getattr(config, "rope_parameters", None) is not None
            and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
            and not getattr(config, "sliding_window", None)
        )

    def _score(
        self, rows: Sequence[tuple[Tokens, Sequence[tuple[int, Tokens]]]], found: list[tuple[float, bool]]
    ) -> None:
        """Put each answer's log-likelihood, and whether it is the most probable one, at its place."""
        import torch

        shared = _beginning([prompt for prompt, _ in rows])
        width = max(len(prompt) - shared + sum(len(answer) - 1 for _, answer in answers) for prompt, answers in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        positions = torch.zeros_like(ids)
        # Of each token: 0 in a prompt, else the number of its answer; what is left is padding, which sees itself.
        part = torch.full_like(ids, -1)
        for row, (prompt, answers) in enumerate(rows):
            own = prompt[shared:]
            pieces = [(own, shared), *((answer[:-1], len(prompt)) for _, answer in answers)]
            end = 0
            for number, (tokens, first) in enumerate(pieces):
                start, end = end, end + len(tokens)
                ids[row, start:end] = torch.tensor(tokens, dtype=torch.long)
                positions[row, start:end] = torch.arange(first, first + len(tokens))
                part[row, start:end] = number
        seen = torch.ones(width, width).tril().bool() & ((part[:, None] == 0) | (part[:, None] == part[..., None]))
        seen = torch.cat([torch.ones(len(rows), width, shared, dtype=torch.bool), seen], -1)[:, None]
        first = min(len(prompt) for prompt, _ in rows) - shared - 1
        logits = self._read(rows[0][0][:shared], ids, positions, seen, width - first)
        for of_row, (prompt, answers) in zip(logits, rows, strict=True):
            last, next_ = len(prompt) - shared - 1 - first, len(prompt) - shared - first
            for place, answer in answers:
                told = torch.cat([of_row[last : last + 1], of_row[next_ : next_ + len(answer) - 1]])
                next_ += len(answer) - 1
                target = torch.tensor(answer, device=told.device)
                logprobs = told.log_softmax(-1, dtype=self.softmax_dtype).gather(-1, target[:, None])
                found[place] = float(logprobs.sum()), bool((told.argmax(-1) == target).all())

    def _read(
        self, beginning: Tokens, ids: "torch.Tensor", positions: "torch.Tensor", seen: "torch.Tensor", kept: int
    ) -> "torch.Tensor":
        """Logits of the last `kept` tokens of each row behind a common beginning."""
        import torch
        from transformers import DynamicCache

        device, dtype = self.device, self.model.dtype
        with torch.inference_mode():
            cache: Any = None
            if beginning:
                cache = DynamicCache(config=self.model.config)
                self.model(input_ids=torch.tensor([beginning], device=device), past_key_values=cache, logits_to_keep=1)
                cache.batch_repeat_interleave(len(ids))
            mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
            output: torch.Tensor = self.model(
                input_ids=ids.to(device),
                position_ids=positions.to(device),
                attention_mask=mask.to(device),
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=kept,
            ).logits
        return output


def _beginning(prompts: Sequence[Tokens]) -> int:
    """How many tokens all the prompts begin with, each keeping one of its own; 0 where it is hardly any."""
    pairs = enumerate(zip(min(prompts), max(prompts), strict=False))
    alike = next((place for place, (one, other) in pairs if one != other), min(map(len, prompts)))
    shared = min(alike, min(map(len, prompts)) - 1)
    return shared if len(prompts) > 1 and shared >= SHORTEST_BEGINNING else 0
