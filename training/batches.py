"""Conversations to token ids, with the loss on the answer and its EOS only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feedback.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100


@dataclass
class Lengths:
    """What the length limit did to the rows of a dataset."""

    rows: int = 0
    truncated: int = 0
    dropped: int = 0


def render(
    tokenizer: "PreTrainedTokenizerBase", prompt: Sequence[Mapping[str, str]], completion: str
) -> tuple[str, str]:
    """Prompt and completion as text in the chat template's form, the completion with its end.

    Raises:
        UserError: the template renders the prompt differently when an answer follows.
    """
    messages = [dict(message) for message in prompt]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    answered = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": completion}], tokenize=False)
    if not answered.startswith(asked):
        raise UserError(
            f"chat template: with an answer it renders the prompt differently (asked: ...{asked[-40:]!r}, answered: "
            f"{answered[max(0, len(asked) - 40) : len(asked) + 20]!r}); set chat_template to one that does not"
        )
    return asked, answered[len(asked) :]


def encode(
    tokenizer: "PreTrainedTokenizerBase", prompt: Sequence[Mapping[str, str]], completion: str
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt as it is given at inference, and of the completion up to and with its EOS.

    Raises:
        UserError: the chat template renders the prompt differently when an answer follows, or ends answers with
            something else than the tokenizer's EOS.
    """
    asked, answer = render(tokenizer, prompt, completion)
    prompt_ids = tokenizer(asked, add_special_tokens=False)["input_ids"]
    whole = tokenizer(asked + answer, add_special_tokens=False)["input_ids"]
    if whole[: len(prompt_ids)] == prompt_ids:
        completion_ids = whole[len(prompt_ids) :]
    else:
        # Tokens merge across the boundary; at inference the prompt is tokenized alone, so it must be here too.
        completion_ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    if tokenizer.eos_token_id not in completion_ids:
        raise UserError(
            f"chat template: an answer ends with {answer[-20:]!r}, which does not hold the tokenizer's EOS "
            f"{tokenizer.eos_token!r}, so the model would never learn to stop; set eos_token or chat_template"
        )
    last = len(completion_ids) - 1 - completion_ids[::-1].index(tokenizer.eos_token_id)
    return prompt_ids, completion_ids[: last + 1]


def demonstration_rows(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Mapping[str, Any]], max_length: int
) -> tuple[list[dict[str, list[int]]], Lengths]:
    """Demonstrations as `input_ids` and `labels`; a row whose prompt leaves no room for an answer is dropped."""
    encoded, lengths = [], Lengths()
    for row in rows:
        prompt, completion = encode(tokenizer, row["prompt"], row["completion"])
        lengths.rows += 1
        if len(prompt) >= max_length:
            lengths.dropped += 1
            continue
        lengths.truncated += len(prompt) + len(completion) > max_length
        labels = [IGNORED] * len(prompt) + completion
        encoded.append({"input_ids": (prompt + completion)[:max_length], "labels": labels[:max_length]})
    return encoded, lengths


def pair_rows(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Mapping[str, Any]], max_length: int
) -> tuple[list[dict[str, list[int]]], Lengths]:
    """Pairs as `prompt_ids`, `chosen_ids` and `rejected_ids`; dropped and truncated as demonstrations are."""
    encoded, lengths = [], Lengths()
    for row in rows:
        prompt, chosen = encode(tokenizer, row["prompt"], row["chosen"])
        _, rejected = encode(tokenizer, row["prompt"], row["rejected"])
        room = max_length - len(prompt)
        lengths.rows += 1
        if room <= 0:
            lengths.dropped += 1
            continue
        lengths.truncated += max(len(chosen), len(rejected)) > room
        encoded.append({"prompt_ids": prompt, "chosen_ids": chosen[:room], "rejected_ids": rejected[:room]})
    return encoded, lengths


def show(tokenizer: "PreTrainedTokenizerBase", row: Mapping[str, list[int]]) -> str:
    """One row as text, what the loss sees between ⟦ and ⟧."""
    if "labels" in row:
        start = next(i for i, label in enumerate(row["labels"]) if label != IGNORED)
        return f"{tokenizer.decode(row['input_ids'][:start])}⟦{tokenizer.decode(row['input_ids'][start:])}⟧"
    prompt, chosen, rejected = (tokenizer.decode(row[f"{part}_ids"]) for part in ("prompt", "chosen", "rejected"))
    return f"{prompt}⟦chosen: {chosen}⟧⟦rejected: {rejected}⟧"
