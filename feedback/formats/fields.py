"""Fields of a row, checked, and the records that a row becomes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from math import isfinite
from typing import Any, Literal, get_args

from feedback.schema import (
    TIE,
    Candidate,
    Demonstration,
    Judgement,
    Message,
    Rater,
    Response,
    Role,
    grounded_prompt,
    user_message,
)

TEXT_LIMIT = 1_000_000
ROLES: Mapping[str, Role] = {role: role for role in get_args(Role)}
KINDS = ("human", "ai", "script")
# What stands before an answer, and the answer.
Answer = tuple[tuple[Message, ...], str]


class Refused(Exception):  # noqa: N818 - it is an answer about a row, not a fault of the program
    """Why a row can't be used, in a few words that name the field."""


@dataclass
class Records:
    """What one row, or a batch of rows, says."""

    candidates: list[Candidate] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)

    def extend(self, other: "Records") -> None:
        self.candidates += other.candidates
        self.judgements += other.judgements
        self.demonstrations += other.demonstrations


@dataclass(frozen=True)
class Origin:
    """Where the rows of one import come from.

    Args:
        kind: of the raters of this format, unless a row says otherwise.
        rater: name of the rater of rows that name none.
        created_at: the one time that all judgements of an import bear.
    """

    format: str
    kind: Literal["human", "ai"]
    rater: str
    created_at: datetime

    @property
    def source(self) -> str:
        return f"import:{self.format}"

    def judgement(self, candidate: Candidate, rater: Rater, **said: Any) -> Judgement:
        return Judgement(candidate_id=candidate.id, rater=rater, source=self.source, created_at=self.created_at, **said)

    def rater_of(self, row: dict[str, Any]) -> Rater:
        """The rater whom the row names in `rater` and `rater_kind`, else the import's."""
        kind = row.get("rater_kind") or self.kind
        if kind not in KINDS:
            raise Refused(f"rater_kind is {shown(kind)}, not human, ai or script")
        return Rater(kind=kind, name=optional_text(row, "rater", limit=200) or self.rater)

    def demonstration(self, prompt: tuple[Message, ...], completion: str, name: str) -> Records:
        """Records of one demonstration whose answer stands in the field `name`."""
        if not completion.strip():
            raise Refused(f"{name} is empty")
        demonstration = Demonstration(prompt=asked(prompt), completion=completion, provenance=self.source)
        return Records(demonstrations=[demonstration])

    def pair(
        self,
        row: dict[str, Any],
        answers: tuple[Answer, Answer],
        names: tuple[str, str],
        metadata: dict[str, Any],
        scores: tuple[float, float] | None = None,
    ) -> Records:
        """Records of a chosen and a rejected answer, which stand in the fields `names`.

        The responses are ordered by a hash of their text: an order that told which was chosen would reach the
        next rater. Equal scores make a tie.
        """
        prompt, texts = _shared_prompt(*answers), [text for _, text in answers]
        if not texts[0].strip():
            raise Refused(f"{names[0]} is empty")
        if texts[0] == texts[1]:
            raise Refused(f"{names[0]} and {names[1]} are the same text")
        order = sorted((0, 1), key=lambda index: sha256(texts[index].encode()).digest())
        context = optional_text(row, "context")
        # Too long a question is found here, in its row, and not when a dataset is built.
        grounded_prompt(asked(prompt), context)
        candidate = Candidate(
            prompt=prompt,
            context=context,
            responses=tuple(Response(text=texts[index]) for index in order),
            metadata=metadata,
        )
        probability = 1.0 if row.get("probability") in (None, "") else number(row["probability"], "probability")
        if not 0.5 <= probability <= 1:
            raise Refused(f"probability is {probability:g}, not between 0.5 and 1")
        judgement = self.judgement(
            candidate,
            self.rater_of(row),
            preferred=TIE if scores and scores[0] == scores[1] else order.index(0),
            probability=probability,
            ratings={f"{order.index(index)}.score": score for index, score in enumerate(scores or ())},
        )
        return Records([candidate], [judgement])


def shown(value: Any) -> str:
    """A value as it may stand in a message: short, and without characters that a terminal obeys."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def as_text(value: Any, name: str, limit: int = TEXT_LIMIT) -> str:
    """The value, if it is text that isn't too long."""
    if value is None:
        raise Refused(f"{name} is missing")
    if not isinstance(value, str):
        raise Refused(f"{name} is {shown(value)}, not text")
    if len(value) > limit:
        raise Refused(f"{name} is {len(value):,} characters long; at most {limit:,}")
    return value


def optional_text(row: dict[str, Any], name: str, limit: int = TEXT_LIMIT) -> str | None:
    """The text of a field, None where it is absent or empty."""
    return as_text(row[name], name, limit) or None if row.get(name) is not None else None


def number(value: Any, name: str) -> float:
    """The value as a number; one in quotes is a number too, as tables and UltraFeedback write it."""
    try:
        if isinstance(value, bool) or not isfinite(result := float(value)):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise Refused(f"{name} is {shown(value)}, not a number") from None
    return result


def choice(value: Any, name: str, allowed: tuple[int, ...]) -> int:
    """The value, if it is one of the allowed whole numbers."""
    if not isinstance(value, bool):
        for option in allowed:
            if value in (option, str(option)):
                return option
    raise Refused(f"{name} is {shown(value)}, not {', '.join(map(str, allowed[:-1]))} or {allowed[-1]}")


def messages(
    value: Any, name: str, role_key: str = "role", text_key: str = "content", roles: Mapping[str, Role] = ROLES
) -> tuple[Message, ...]:
    """A conversation from a list of objects that name a role and a text."""
    if not isinstance(value, list) or not value:
        raise Refused(f"{name} is {shown(value)}, not a list of messages")
    turns: list[Message] = []
    for place, message in enumerate(value):
        at = f"{name}[{place}]"
        if not isinstance(message, dict):
            raise Refused(f"{at} is {shown(message)}, not a message")
        if not isinstance(said := message.get(role_key), str) or said not in roles:
            raise Refused(f"{at}.{role_key} is {shown(said)}, not one of {', '.join(roles)}")
        if message.get("tool_calls") or message.get("function_call"):
            raise Refused(f"{at} calls a tool, which can't be kept")
        if roles[said] == "system" and place:
            raise Refused(f"{at}.{role_key} is {shown(said)}; only the first message can be")
        turns.append(Message(role=roles[said], content=as_text(message.get(text_key), f"{at}.{text_key}")))
    return tuple(turns)


def conversation(value: Any, name: str) -> tuple[Message, ...]:
    """A prompt that is a list of messages or one plain question."""
    return messages(value, name) if isinstance(value, list) else user_message(as_text(value, name))


def split_answer(turns: tuple[Message, ...], name: str) -> Answer:
    """The turns before the assistant's last one, and its text."""
    if turns[-1].role != "assistant":
        raise Refused(f"{name} ends with the turn of the {turns[-1].role}, not with the assistant's answer")
    return turns[:-1], turns[-1].content


def joined(prompt: tuple[Message, ...], turns: tuple[Message, ...], name: str) -> tuple[Message, ...]:
    """The conversation that a prompt and the turns after it make; some data sets repeat the prompt in the turns."""
    if turns[: len(prompt)] == prompt:
        return turns
    if turns[0].role != "assistant":
        raise Refused(f"{name}[0] is a {turns[0].role} turn that is not the prompt's")
    return prompt + turns


def asked(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The prompt, if it asks something."""
    if not prompt:
        raise Refused("prompt is missing")
    if prompt[-1].role == "user" and not prompt[-1].content.strip():
        raise Refused("prompt is empty")
    return prompt


def rest(row: dict[str, Any], *taken: str) -> dict[str, Any]:
    """The fields that no record has a place for: they are kept as the candidate's metadata."""
    return {key: value for key, value in row.items() if key not in (*taken, "rater", "rater_kind")}


def _shared_prompt(chosen: Answer, rejected: Answer) -> tuple[Message, ...]:
    first, second = chosen[0], rejected[0]
    if len(first) != len(second):
        raise Refused(f"the prompts differ ({len(first)} turns before one answer, {len(second)} before the other)")
    for place, (one, other) in enumerate(zip(first, second, strict=True), 1):
        if one != other:
            raise Refused(f"the prompts differ (at turn {place})")
    return first
