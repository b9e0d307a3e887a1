"""Generators' answers, kept by their requests."""

from collections.abc import Iterable

from feedback.cache import Cache
from feedback.constitution.generators import Answer, Request
from feedback.files import content_hash


def request_key(model: str, request: Request) -> str:
    """Equal for equal requests of one model.

    Args:
        model: names the model with everything that its answers depend on: its address, or a hash of its weights.
    """
    fields = vars(request) | {"messages": [[m.role, m.content] for m in request.messages]}
    return content_hash({"model": model, **fields})


class AnswerCache(Cache):
    """Answers that any job of the workspace got."""

    def __enter__(self) -> "AnswerCache":
        return self

    def get(self, key: str) -> Answer | None:
        """The answer that was given to this request."""
        value = self.find(key)
        if value is None:
            return None
        texts, options, tokens = value
        return Answer(tuple(texts), None if options is None else tuple(options), tokens, cached=True)

    def put(self, answers: Iterable[tuple[str, Answer]]) -> None:
        """Keep answers by their requests' keys; one that could not be had is not for keeping."""
        self.keep(
            (key, [answer.texts, answer.options, answer.tokens]) for key, answer in answers if answer.error is None
        )
