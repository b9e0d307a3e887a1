"""Rows that name a chosen and a rejected answer: TRL's, OpenAI's, and the transcripts of HH-RLHF."""

import re
from typing import Any

from feedback.formats.demonstrations import chat, prompt_completion
from feedback.formats.fields import (
    Answer,
    Origin,
    Records,
    Refused,
    as_text,
    conversation,
    joined,
    messages,
    rest,
    split_answer,
)
from feedback.schema import Message, Role

TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant): ?")
SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
SIDES = ("chosen", "rejected")
TAKEN = (*SIDES, "context", "probability")


def trl(row: dict[str, Any], origin: Origin) -> Records:
    """TRL's preference and prompt-completion rows, plain or conversational, with the prompt apart or in both answers.

    `context`, `probability` (0.5 to 1), `rater` and `rater_kind` are read too.

    Raises:
        Refused: the row is neither of the two, or a part of it can't be used.

    Source: TRL, "Dataset formats and types".
    """
    if row.get("chosen") is None and row.get("rejected") is None:
        if "label" in row:
            raise Refused("unpaired preference (a label on one answer); a pair needs chosen and rejected")
        return prompt_completion(row, origin)
    return origin.pair(row, (_answer(row, "chosen"), _answer(row, "rejected")), SIDES, rest(row, "prompt", *TAKEN))


def openai(row: dict[str, Any], origin: Origin) -> Records:
    """OpenAI's fine-tuning rows: `messages`, or `input` with `preferred_output` and `non_preferred_output`.

    Raises:
        Refused: a part of the row can't be used.

    Source: OpenAI, "Supervised fine-tuning" and "Direct preference optimization" guides.
    """
    if "messages" in row:
        return chat(row, origin)
    if not isinstance(asked := row.get("input"), dict):
        raise Refused("neither messages nor input.messages")
    names = ("preferred_output", "non_preferred_output")
    prompt = messages(asked.get("messages"), "input.messages")
    chosen, rejected = (split_answer(joined(prompt, messages(row.get(name), name), name), name) for name in names)
    metadata = rest(row, "input", *names, "context", "probability") | rest(asked, "messages")
    return origin.pair(row, (chosen, rejected), names, metadata)


def hh_rlhf(row: dict[str, Any], origin: Origin) -> Records:
    """Two transcripts of Human and Assistant turns that differ in the last answer alone.

    Raises:
        Refused: the turns before the last answer differ, or a transcript is none.

    Source: Bai et al., arXiv 2204.05862, data at github.com/anthropics/hh-rlhf.
    """
    chosen, rejected = (split_answer(transcript(row.get(name), name), name) for name in SIDES)
    return origin.pair(row, (chosen, rejected), SIDES, rest(row, *TAKEN))


def transcript(value: Any, name: str) -> tuple[Message, ...]:
    """The turns of a text "\\n\\nHuman: …\\n\\nAssistant: …", each without the one space after the colon."""
    before, *parts = TURN.split(as_text(value, name))
    if before or not parts:
        raise Refused(f"{name} doesn't begin with Human: or Assistant:")
    turns = zip(parts[::2], parts[1::2], strict=True)
    return tuple(Message(role=SPEAKERS[speaker], content=text) for speaker, text in turns)


def _answer(row: dict[str, Any], name: str) -> Answer:
    """The answer in one of the two columns, with the prompt in front of it or in a column of its own."""
    prompt = () if row.get("prompt") is None else conversation(row["prompt"], "prompt")
    if isinstance(row.get(name), list):
        return split_answer(joined(prompt, messages(row[name], name), name), name)
    answer = as_text(row.get(name), name)
    if not prompt:
        raise Refused("prompt is missing; plain chosen and rejected texts need one")
    return prompt, answer
