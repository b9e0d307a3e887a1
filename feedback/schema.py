"""The records: what was asked and answered, what was said of the answers, and what is trained on.

These models are also the columns of the Arrow files and of JSONL.
"""

from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from feedback.files import content_hash

# Uploaded text is hostile: one row can't fill the memory.
Text = Annotated[str, Field(max_length=1_000_000)]
Role = Literal["system", "user", "assistant"]
Status = Literal["submitted", "draft", "discarded"]
TIE = "tie"
BOTH_BAD = "both bad"
# The source of judgements on pairs of a first and a revised answer, which nobody has compared; with a colon, how the
# provenance of a demonstration begins that a model made of its own answer.
REVISION = "revision"
# Fields of judgements that came later, as they are where nothing is said.
_UNSAID: tuple[tuple[str, Any], ...] = (("spans", []), ("status", "submitted"), ("evidence", {}))


class Record(BaseModel):
    """Immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    role: Role
    content: Text


class Response(Record):
    text: Text
    model: str | None = None


class Rater(Record):
    """Who judged. A script that imitates a person says so by its kind."""

    kind: Literal["human", "ai", "script"]
    name: str


class Span(Record):
    """A stretch of a response, in characters from `start` up to but without `end`, and what is said of it."""

    response: int = Field(ge=0)
    start: int = Field(ge=0)
    end: int = Field(gt=0)
    label: str


class Candidate(Record):
    """A prompt with the answers that are to be compared; its id is a hash of its content."""

    prompt: tuple[Message, ...] = Field(min_length=1)
    context: Text | None = None
    responses: tuple[Response, ...] = Field(min_length=1)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ends_with_the_user(self) -> Self:
        _require_user_turn(self.prompt)
        return self

    @cached_property
    def id(self) -> str:
        return content_hash(self.model_dump(mode="json", exclude={"metadata"}))


class Judgement(Record):
    """What one rater said of one candidate.

    `preferred` is an index into the candidate's responses, `"tie"` or `"both bad"`; `ranking` orders more than two
    responses, best first, ties sharing a group. `probability` is the rater's own that `preferred` is the better one.
    `ratings` are by name, or by name and response: `truthful[0]`. A draft or a discarded record is kept, and teaches
    nothing. `evidence` is what a model's word stands on: hashes of its prompt and of its constitution, and the like.
    """

    candidate_id: str
    rater: Rater
    source: str
    preferred: Annotated[int, Field(ge=0)] | Literal["tie", "both bad"] | None = None
    ranking: tuple[tuple[int, ...], ...] | None = None
    probability: float = Field(default=1.0, ge=0.5, le=1.0)
    ratings: dict[str, float] = Field(default_factory=dict)
    rationale: Text | None = None
    rewrite: Text | None = None
    principle: str | None = None
    spans: tuple[Span, ...] = ()
    status: Status = "submitted"
    evidence: dict[str, str] = Field(default_factory=dict)
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def id(self) -> str:
        return content_hash(self._hashed())

    @cached_property
    def verdict(self) -> str:
        """Hash of what was said, whenever it was said: a repeated verdict is no second one."""
        said = self._hashed()
        del said["created_at"]
        return content_hash(said)

    def _hashed(self) -> dict[str, Any]:
        """The fields that make the hash; those that came later only where they say something, so that ids last."""
        fields = self.model_dump(mode="json")
        return {k: v for k, v in fields.items() if (k, v) not in _UNSAID}


class PreferencePair(Record):
    """One training example for reward models and DPO, with the judgements it stands on."""

    prompt: tuple[Message, ...] = Field(min_length=1)
    chosen: Text
    rejected: Text
    probability: float = Field(ge=0.5, le=1.0)
    judgements: tuple[str, ...]


class Demonstration(Record):
    """One training example for SFT. `provenance` says where the completion came from, e.g. `rewrite:JUDGEMENT_ID`."""

    prompt: tuple[Message, ...] = Field(min_length=1)
    completion: Text = Field(min_length=1)
    provenance: str

    @model_validator(mode="after")
    def _ends_with_the_user(self) -> Self:
        _require_user_turn(self.prompt)
        return self

    @cached_property
    def id(self) -> str:
        return content_hash(self.model_dump(mode="json"))


def user_message(text: str) -> tuple[Message, ...]:
    """A conversation of one question."""
    return (Message(role="user", content=text),)


def grounded_prompt(prompt: tuple[Message, ...], context: str | None) -> tuple[Message, ...]:
    """The prompt as a model sees it: a grounding text stands before the last question."""
    if not context:
        return prompt
    last = prompt[-1]
    return (*prompt[:-1], Message(role=last.role, content=f"{context}\n\n{last.content}"))


def prompt_key(prompt: tuple[Message, ...]) -> str:
    """Equal for prompts that differ only in case and white space, so that they share a split."""
    return content_hash([[m.role, " ".join(m.content.casefold().split())] for m in prompt])


def _require_user_turn(prompt: tuple[Message, ...]) -> None:
    if prompt[-1].role != "user":
        raise ValueError(f"the prompt must end with a user message, not with {prompt[-1].role!r}")
