"""Judges that are planted: an endpoint whose preference between two answers is known."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feedback.constitution.endpoint import Endpoint
from feedback.schema import Candidate, Response, user_message
from feedback.workspace import EndpointSettings
from tests.feedback.constitution.faulty import FaultyServer, Reaction, completion

React = Callable[[dict[str, Any], int], Reaction | None]
WORTH = re.compile(r"worth (-?[\d.]+)")


def candidate(question: str, *worths: float, context: str | None = None) -> Candidate:
    """Answers that say what they are worth."""
    responses = tuple(Response(text=f"an answer worth {worth}") for worth in worths)
    return Candidate(prompt=user_message(question), context=context, responses=responses)


def shown_worths(body: dict[str, Any]) -> tuple[float, float]:
    """What the two answers of the last question that has options are worth, (A) first."""
    asked = next(m["content"] for m in reversed(body["messages"]) if "\n\n(A) " in m["content"])
    a, b = WORTH.findall(asked.rpartition("\n\n(A) ")[2])
    return float(a), float(b)


def probability_of_a(worths: tuple[float, float], bias: float) -> float:
    return 1 / (1 + math.exp(worths[1] - worths[0] - bias))


def planted(bias: float = 0.0, scale: float = 1.0) -> React:
    """Prefers the worthier by the logistic of the difference, plus a bias for whatever stands first.

    Args:
        scale: of the probability that A and B have together.
    """

    def react(body: dict[str, Any], before: int) -> Reaction:
        if "logprobs" not in body:
            return Reaction(body=completion("Both have their merits."))
        p = probability_of_a(shown_worths(body), bias)
        return Reaction(body=completion("A", {"A": math.log(scale * p), "B": math.log(scale * (1 - p))}))

    return react


def voting(*texts: str) -> React:
    """Gives no probabilities, and says these things in turn, by the seed of the request."""

    def react(body: dict[str, Any], before: int) -> Reaction:
        return Reaction(body=completion(texts[body["seed"] % len(texts)]))

    return react


def endpoint(server: FaultyServer, folder: Path, **settings: Any) -> Endpoint:
    return Endpoint("planted", EndpointSettings(url=server.url, **settings), folder / "cache")
