"""Conversations to token ids, with the loss on the answer and its EOS only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feedback.errors import UserError
from feedback.files import canonical_json

if TYPE_CHECKING:
    import torch
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
) -> tuple[list[dict[str, Any]], Lengths]:
    """Pairs as `prompt_ids`, `chosen_ids`, `rejected_ids` and their `probability`, cut as demonstrations are."""
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
        ids = {"prompt_ids": prompt, "chosen_ids": chosen[:room], "rejected_ids": rejected[:room]}
        encoded.append({**ids, "probability": row["probability"]})
    return encoded, lengths


def answer_rows(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Mapping[str, Any]], max_length: int
) -> tuple[list[dict[str, Any]], Lengths]:
    """The answers of pairs one by one: `prompt_ids`, `completion_ids`, and as `label` whether it is a chosen one."""
    pairs, lengths = pair_rows(tokenizer, rows, max_length)
    encoded = [
        {"prompt_ids": pair["prompt_ids"], "completion_ids": pair[f"{kind}_ids"], "label": kind == "chosen"}
        for pair in pairs
        for kind in ("chosen", "rejected")
    ]
    return encoded, lengths


def comparison_rows(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Mapping[str, Any]], max_length: int
) -> tuple[list[dict[str, Any]], Lengths]:
    """Pairs by prompt: `prompt_ids`, different `answers`, and of each pair `better` and `worse` as places among these.

    All pairs of a prompt are one row, so that they meet in one batch and each answer is computed once (InstructGPT,
    arXiv 2203.02155, section 3.5). Dropped and truncated as demonstrations are, pair by pair.
    """
    encoded, lengths = [], Lengths()
    by_prompt: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_prompt.setdefault(canonical_json(row["prompt"]), []).append(row)
    for pairs in by_prompt.values():
        places: dict[str, int] = {}
        for pair in pairs:
            for text in (pair["chosen"], pair["rejected"]):
                places.setdefault(text, len(places))
        both = [encode(tokenizer, pairs[0]["prompt"], text) for text in places]
        prompt, answers = both[0][0], [answer for _, answer in both]
        room = max_length - len(prompt)
        lengths.rows += len(pairs)
        if room <= 0:
            lengths.dropped += len(pairs)
            continue
        better, worse = ([places[pair[kind]] for pair in pairs] for kind in ("chosen", "rejected"))
        lengths.truncated += sum(
            max(len(answers[b]), len(answers[w])) > room for b, w in zip(better, worse, strict=True)
        )
        encoded.append(
            {
                "prompt_ids": prompt,
                "answers": [answer[:room] for answer in answers],
                "better": better,
                "worse": worse,
                "probability": [pair["probability"] for pair in pairs],
            }
        )
    return encoded, lengths


def prompt_rows(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Mapping[str, Any]], max_length: int
) -> tuple[list[dict[str, Any]], Lengths]:
    """Prompts as `input_ids`, with the conversation as `prompt`; one that is longer than allowed is dropped."""
    encoded, lengths = [], Lengths()
    for row in rows:
        prompt, _ = encode(tokenizer, row["prompt"], "")
        lengths.rows += 1
        if len(prompt) > max_length:
            lengths.dropped += 1
        else:
            encoded.append({"input_ids": prompt, "prompt": row["prompt"]})
    return encoded, lengths


def padded(rows: Sequence[Mapping[str, Sequence[int]]], pad_token_id: int) -> dict[str, "torch.Tensor"]:
    """Rows of `input_ids`, some encoders' also of `token_type_ids`, with an `attention_mask`, padded on the right."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = [torch.tensor(row["input_ids"]) for row in rows]
    batch = {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_token_id),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
    }
    if "token_type_ids" in rows[0]:
        kinds = [torch.tensor(row["token_type_ids"]) for row in rows]
        batch["token_type_ids"] = pad_sequence(kinds, batch_first=True)
    return batch


def first_sequence(row: Mapping[str, Any]) -> list[int]:
    """A row's first prompt and answer."""
    if "input_ids" in row:
        return row["input_ids"]
    return row["prompt_ids"] + (
        row["answers"][0] if "answers" in row else row.get("chosen_ids") or row["completion_ids"]
    )


def show(tokenizer: "PreTrainedTokenizerBase", row: Mapping[str, Any]) -> str:
    """One row as text, what the loss sees between ⟦ and ⟧."""
    if "completion_ids" in row:
        kind = "good" if row["label"] else "bad"
        return f"{tokenizer.decode(row['prompt_ids'])}⟦{kind}: {tokenizer.decode(row['completion_ids'])}⟧"
    if "label" in row:
        return f"{tokenizer.decode(row['input_ids'])}⟦{row['label']}⟧"
    if "labels" in row:
        start = next(i for i, label in enumerate(row["labels"]) if label != IGNORED)
        return f"{tokenizer.decode(row['input_ids'][:start])}⟦{tokenizer.decode(row['input_ids'][start:])}⟧"
    if "answers" in row:
        better, worse = (tokenizer.decode(row["answers"][row[kind][0]]) for kind in ("better", "worse"))
        return f"{tokenizer.decode(row['prompt_ids'])}⟦better: {better}⟧⟦worse: {worse}⟧"
    if "prompt" in row:
        return f"{tokenizer.decode(row['input_ids'])}⟦what the policy answers⟧"
    prompt, chosen, rejected = (tokenizer.decode(row[f"{part}_ids"]) for part in ("prompt", "chosen", "rejected"))
    return f"{prompt}⟦chosen: {chosen}⟧⟦rejected: {rejected}⟧"
