"""lm-eval on a model whose answers are kept: what it answered once, in whichever evaluation, it is not asked again."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from feedback.argilla.progress import Progress
from feedback.cache import Cache
from feedback.files import canonical_json, content_hash


class Recall(LM):
    """A model of lm-eval's that goes on where it was.

    lm-eval's own CachingLM would not do: it keeps pickles, which run what they hold, and a resumed evaluation batches
    what is left anew, which moves figures in their last digits. Here the batches are made of all requests, known or
    not, and each is kept as a whole before the next: one that goes on makes the same ones.

    Args:
        model: asked for what is not known, a batch at a time.
        identity: what its answers depend on, e.g. a hash of its weights; None keeps nothing.
        cache: of the workspace; None keeps nothing.
        batch_size: prompts in a batch.
        name: what the progress is of.
        say: takes a line now and then.
    """

    def __init__(
        self,
        model: LM,
        identity: str | None,
        cache: Cache | None,
        batch_size: int,
        name: str,
        say: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.model, self.identity, self.batch_size = model, identity, batch_size
        self.cache = cache if identity else None
        self.name, self.say = name, say

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return [(logprob, greedy) for logprob, greedy in self._answers("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        return self._answers("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        return self._answers("generate_until", requests)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> Any:
        return self.model.apply_chat_template(chat_history, add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        return str(self.model.tokenizer_name)

    def _answers(self, kind: str, requests: Sequence[Instance]) -> list[Any]:
        keys = self._keys(kind, requests)
        found: list[Any] = [None] * len(requests)
        progress = Progress(len(requests), self.name, self.say)
        for batch in _batches(requests, self.batch_size):
            known = {place: self.cache.find(keys[place]) for place in batch} if self.cache else {}
            new = [place for place in batch if known.get(place) is None]
            if new:
                made = getattr(self.model, kind)([requests[place] for place in new], disable_tqdm=True)
                known |= dict(zip(new, made, strict=True))
                if self.cache:
                    self.cache.keep((keys[place], known[place]) for place in new)
            for place in batch:
                found[place] = known[place]
            progress.total -= len(batch) - len(new)
            progress.step(len(new))
        return found

    def _keys(self, kind: str, requests: Sequence[Instance]) -> list[str]:
        """A key for each; what is asked several times over, to draw several samples, has one each time."""
        times: dict[str, int] = {}
        keys = []
        for request in requests:
            asked = canonical_json(request.args)
            times[asked] = times.get(asked, 0) + 1
            keys.append(content_hash([self.identity, kind, asked, times[asked]]))
        return keys


def _batches(requests: Sequence[Instance], size: int) -> Iterator[list[int]]:
    """Places of requests, those of one prompt together, the longest first; `size` prompts a batch."""
    prompts: dict[str, list[int]] = {}
    for place, request in enumerate(requests):
        # A prompt is sampled from in one way at a time.
        how = request.args[1] if request.request_type == "generate_until" else None
        prompts.setdefault(canonical_json([how, request.args[0]]), []).append(place)
    ordered = sorted(prompts, key=lambda prompt: (-len(prompt), prompt))
    for start in range(0, len(ordered), size):
        yield [place for prompt in ordered[start : start + size] for place in prompts[prompt]]
