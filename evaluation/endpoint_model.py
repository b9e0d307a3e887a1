"""A model behind an OpenAI-compatible endpoint, as lm-eval asks it: answers by chat, and no probabilities."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from feedback.constitution.endpoint import Endpoint
from feedback.constitution.generators import Request
from feedback.errors import UserError
from feedback.schema import Message

# lm-eval's own, for tasks that say nothing.
MAX_NEW_TOKENS = 256


class EndpointModel(LM):
    """Asks with the endpoint's concurrency, retries, budget and cache.

    lm-eval's own `local-chat-completions` has none of these, and where an answer fails it goes on with a placeholder,
    which would be graded.

    Args:
        cached: take what the endpoint answered before.
        say: takes a line now and then.
    """

    tokenizer_name = ""

    def __init__(self, endpoint: Endpoint, cached: bool, say: Callable[[str], None]) -> None:
        super().__init__()
        self.endpoint, self.cached, self.say = endpoint, cached, say

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return json.dumps(chat_history, ensure_ascii=False)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Answers to conversations in JSON, cut where the task stops reading.

        Raises:
            UserError: one can't be had; those that can are kept.
        """
        asked = [self._request(*instance.args) for instance in requests]
        answers: dict[int, str] = {}
        lost = []
        with tempfile.TemporaryDirectory() as folder:
            if not self.cached:
                self.endpoint.cache = Path(folder)
            for place, answer in self.endpoint.answer(asked, self.say):
                if answer.error is not None:
                    lost.append(f"{self.endpoint.name}: {answer.error}")
                else:
                    answers[place] = answer.texts[0]
        if lost:
            raise UserError(*dict.fromkeys(lost))
        return [_cut(answers[place], instance.args[1].get("until")) for place, instance in enumerate(requests)]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("an endpoint's chat tells no probabilities")

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise NotImplementedError("an endpoint's chat tells no probabilities")

    def _request(self, conversation: str, how: dict[str, Any]) -> Request:
        sampled = how.get("do_sample", float(how.get("temperature", 0)) > 0)
        return Request(
            tuple(Message.model_validate(message) for message in json.loads(conversation)),
            max_tokens=how.get("max_gen_toks", MAX_NEW_TOKENS),
            temperature=float(how.get("temperature", 1)) if sampled else 0.0,
        )


def _cut(text: str, until: str | list[str] | None) -> str:
    for stop in [until] if isinstance(until, str) else until or []:
        text = text.split(stop)[0] if stop else text
    return text
