"""What the constitution needs of a text generator, be it an endpoint or a model on this machine."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from feedback.schema import Message


@dataclass(frozen=True)
class Request:
    """One thing asked of a model.

    Args:
        messages: the conversation, ending with the user.
        max_tokens: after which a text is cut.
        n: how many texts.
        options: ask for the probability of each of these as the next words of the assistant, in place of a text; `n`
            is then the number of votes where the endpoint gives no probabilities.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    n: int = 1
    seed: int = 0
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Args:
        texts: what was said; for a request with options, the votes, where there are no probabilities.
        options: natural log-probability of each option, in the order of the request's; they need not sum to one.
        tokens: what the answer cost, prompt and texts; what a cached answer cost when it was first given.
        cached: it was on disk, nothing was asked.
        error: why there is no answer.
    """

    texts: tuple[str, ...] = ()
    options: tuple[float, ...] | None = None
    tokens: int = 0
    cached: bool = False
    error: str | None = None


class TextGenerator(Protocol):
    """Answers requests; `name` is the model as judgements and candidates record it."""

    name: str

    def answer(self, requests: Iterable[Request], say: Callable[[str], None]) -> Iterator[tuple[int, Answer]]:
        """Answers as they come, each with its request's place; one that could not be had says so in `error`.

        Args:
            say: takes the lines that a person at the screen reads.

        Raises:
            UserError: what no retry helps: a refused key, an unknown model, a spent budget. What was answered before
                is in the cache.
        """
        ...
