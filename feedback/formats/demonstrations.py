"""Rows that show one good answer: prompt and completion, Alpaca, ShareGPT and OpenAI's chats."""

from typing import Any

from feedback.formats.fields import (
    Origin,
    Records,
    Refused,
    as_text,
    conversation,
    joined,
    messages,
    optional_text,
    shown,
    split_answer,
)
from feedback.schema import Message, Role, grounded_prompt, user_message

SHAREGPT_ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
}


def prompt_completion(row: dict[str, Any], origin: Origin) -> Records:
    """`prompt` and `completion`, each a text or a list of messages; a `context` goes in front of the question.

    Raises:
        Refused: one of them is missing or can't be used.
    """
    if row.get("completion") is None:
        raise Refused("neither chosen and rejected nor completion")
    prompt, completion = conversation(row.get("prompt"), "prompt"), row["completion"]
    if isinstance(completion, list):
        turns = joined(prompt, messages(completion, "completion"), "completion")
        prompt, completion = split_answer(turns, "completion")
    grounded = grounded_prompt(prompt, optional_text(row, "context"))
    return origin.demonstration(grounded, as_text(completion, "completion"), "completion")


def chat(row: dict[str, Any], origin: Origin) -> Records:
    """`messages` whose last one is the assistant's: the completion.

    Raises:
        Refused: the messages can't be used.
    """
    prompt, completion = split_answer(messages(row["messages"], "messages"), "messages")
    return origin.demonstration(prompt, completion, "the last message")


def alpaca(row: dict[str, Any], origin: Origin) -> Records:
    """`instruction`, `input` (may be empty), `output`, and the `system` text that some tools add.

    Raises:
        Refused: one of them is missing, or the row carries a `history` of turns.

    Source: Taori et al., Stanford Alpaca, data release.
    """
    if history := row.get("history"):
        raise Refused(f"history is {shown(history)}; Alpaca rows have one turn, use sharegpt")
    prompt = _system(row) + user_message(instruction(row))
    return origin.demonstration(prompt, as_text(row.get("output"), "output"), "output")


def sharegpt(row: dict[str, Any], origin: Origin) -> Records:
    """`conversations` of {from, value}: the last gpt turn is the completion, what was said after it is left out.

    Raises:
        Refused: no turn is gpt's, or one can't be used.
    """
    turns = messages(row.get("conversations"), "conversations", "from", "value", SHAREGPT_ROLES)
    answers = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
    if not answers:
        raise Refused("conversations hold no turn of gpt")
    return origin.demonstration(_system(row) + turns[: answers[-1]], turns[answers[-1]].content, "the last gpt turn")


def instruction(row: dict[str, Any]) -> str:
    """An instruction with the input that it speaks of, as one question."""
    task = as_text(row.get("instruction"), "instruction")
    if not task.strip():
        raise Refused("instruction is empty")
    given = optional_text(row, "input") or ""
    return f"{task}\n\n{given}" if given.strip() else task


def _system(row: dict[str, Any]) -> tuple[Message, ...]:
    text = optional_text(row, "system")
    return (Message(role="system", content=text),) if text else ()
