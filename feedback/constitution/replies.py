"""What an endpoint says back: the parts of a chat completion that are of use, each checked."""

import email.utils
import math
import time
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, Field

from feedback.schema import Text


class Token(BaseModel):
    token: str
    logprob: float = Field(allow_inf_nan=False)


class Position(BaseModel):
    top_logprobs: list[Token]


class Logprobs(BaseModel):
    content: list[Position] | None = None


class Message(BaseModel):
    content: Text | None = None


class Choice(BaseModel):
    message: Message
    logprobs: Logprobs | None = None


class Usage(BaseModel):
    total_tokens: int = 0


class Reply(BaseModel):
    """A chat completion; fields that we have no use for may be missing or wrong."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None

    @property
    def text(self) -> str:
        return self.choices[0].message.content or ""

    @property
    def tokens(self) -> int:
        return self.usage.total_tokens if self.usage else 0

    @property
    def first_tokens(self) -> list[Token]:
        """The most probable first tokens of the answer; none where the endpoint gives no probabilities."""
        logprobs = self.choices[0].logprobs
        return logprobs.content[0].top_logprobs if logprobs and logprobs.content else []


def option_logprobs(first_tokens: Sequence[Token], options: Sequence[str]) -> tuple[float, ...] | None:
    """Log-probability of each option by the tokens that begin it, whatever their case and the space before them.

    A token that begins several options speaks for none. An option that is not among the tokens gets the least of their
    log-probabilities, which is the most that it can have.

    Returns:
        None where no option is among the tokens.
    """
    found: list[list[float]] = [[] for _ in options]
    for token in first_tokens:
        start = token.token.strip().casefold()
        begun = [i for i, option in enumerate(options) if start and option.strip().casefold().startswith(start)]
        if len(begun) == 1:
            found[begun[0]].append(token.logprob)
    if not any(found):
        return None
    most = min(token.logprob for token in first_tokens)
    return tuple(_log_of_sum(logprobs) if logprobs else most for logprobs in found)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the endpoint asks to wait: RFC 9110, section 10.2.3, and OpenAI's finer header."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except ValueError:
        return None


def _log_of_sum(logprobs: Sequence[float]) -> float:
    largest = max(logprobs)
    return largest + math.log(sum(math.exp(logprob - largest) for logprob in logprobs))
