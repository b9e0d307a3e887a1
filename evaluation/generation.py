"""Answers from loaded models: both sides of a comparison streamed in one batch, or many samples of one side."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from pydantic import Field

from evaluation.harness import Side
from feedback.errors import UserError
from feedback.schema import Message, Record

MAX_NEW_TOKENS = 2048
# What a tokenizer shows for the first bytes of a character whose last ones are still to come.
INCOMPLETE = "\ufffd"


class Sampling(Record):
    """How the next token is chosen; equal settings give equal answers on the same machine."""

    temperature: float = Field(default=0.0, ge=0, le=2, description="0 always takes the most probable token")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="sample from the most probable tokens that make up this share"
    )
    max_new_tokens: int = Field(default=256, ge=1, le=MAX_NEW_TOKENS, description="tokens after which an answer is cut")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="of the random choices at temperatures above 0")


def stream_pair(
    sides: tuple[Side, Side], messages: Sequence[Message], sampling: Sampling, stop: Callable[[], bool]
) -> Generator[tuple[str, str], None, None]:
    """Both answers to one conversation as they grow, each what its side alone would give.

    Args:
        sides: on one PeftModel both rows are decoded in one batch; two models, or adapters that no batch can mix, take
            turns, token by token.
        messages: the conversation, ending with the user.
        stop: asked after each token; True ends both answers where they are, as closing the generator does.

    Raises:
        UserError: the conversation leaves no room for an answer in the model's context.
    """
    prompts = [encode_prompt(side, messages) for side in sides]
    decode = _together if _can_share_a_batch(sides) else _in_turn
    rows = [_Row(side) for side in sides]
    with closing(decode(sides, prompts, sampling, stop)) as steps:
        for step in steps:
            for row, token in zip(rows, step, strict=True):
                row.add(token)
            yield rows[0].text, rows[1].text
        yield rows[0].whole, rows[1].whole


def _together(
    sides: tuple[Side, Side], prompts: Sequence[Sequence[int]], sampling: Sampling, stop: Callable[[], bool]
) -> Generator[list[int], None, None]:
    tokens: SimpleQueue[list[int] | BaseException | None] = SimpleQueue()
    cancelled = Event()

    def work() -> None:
        try:
            with _mixed_batch(sides), _seeded(sampling.seed):
                _generate(sides[0], prompts, sampling, _Streamer(tokens), lambda: cancelled.is_set() or stop())
            tokens.put(None)
        except BaseException as error:
            tokens.put(error)

    # transformers pushes its tokens, a page pulls them: the two meet in a queue.
    thread = Thread(target=work, name="stream_pair", daemon=True)
    thread.start()
    try:
        while (step := tokens.get()) is not None:
            if isinstance(step, BaseException):
                raise step
            yield step
    finally:
        # Whoever comes next finds the model idle.
        cancelled.set()
        thread.join()


def _in_turn(
    sides: tuple[Side, Side], prompts: Sequence[Sequence[int]], sampling: Sampling, stop: Callable[[], bool]
) -> Generator[list[int], None, None]:
    from transformers import DynamicCache

    rows = [list(prompt) for prompt in prompts]
    ends = [_end_tokens(side) for side in sides]
    caches = [DynamicCache(config=side.model.config) for side in sides]
    room = min(_room(side, len(row)) for side, row in zip(sides, rows, strict=True))
    for number in range(min(sampling.max_new_tokens, room)):
        one = sampling.model_copy(update={"max_new_tokens": 1})
        for side, row, end, cache in zip(sides, rows, ends, caches, strict=True):
            if row[-1] in end and number:
                row.append(row[-1])
                continue
            with side.active(), _seeded(sampling.seed + number):
                row += _generate(side, [row], one, cache=cache)[0]
        yield [row[-1] for row in rows]
        if stop() or all(row[-1] in end for row, end in zip(rows, ends, strict=True)):
            return


def sample_answers(
    side: Side, prompts: Sequence[Sequence[Message]], count: int, sampling: Sampling, batch_size: int
) -> list[list[str]]:
    """`count` answers to each conversation.

    Args:
        batch_size: answers that are generated at a time.

    Raises:
        UserError: several answers are wanted at temperature 0, or conversations leave no room for an answer; one
            line for each.
    """
    encoded: list[list[int]] = []
    mistakes: list[str] = []
    for prompt in prompts:
        try:
            encoded.append(encode_prompt(side, prompt))
        except UserError as error:
            mistakes += error.lines
    if mistakes:
        raise UserError(*mistakes)
    return sample_encoded(side, encoded, count, sampling, batch_size)


def sample_encoded(
    side: Side, prompts: Sequence[Sequence[int]], count: int, sampling: Sampling, batch_size: int
) -> list[list[str]]:
    """`count` answers to each prompt of token ids.

    Raises:
        UserError: several answers are wanted at temperature 0.
    """
    if count > 1 and sampling.temperature == 0:
        raise UserError(f"temperature 0: its {count} answers would be the same one; raise it, or ask for 1 answer")
    rows = [prompt for prompt in prompts for _ in range(count)]
    answers = []
    with side.active(), _seeded(sampling.seed):
        for start in range(0, len(rows), batch_size):
            for tokens in _generate(side, rows[start : start + batch_size], sampling):
                row = _Row(side)
                for token in tokens:
                    row.add(token)
                answers.append(row.whole)
    return [answers[start : start + count] for start in range(0, len(answers), count)]


def encode_prompt(side: Side, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation up to where the answer begins.

    Raises:
        UserError: the tokenizer can't form it, or it fills the model's context.
    """
    from jinja2 import TemplateError

    tokenizer = side.tokenizer
    if not tokenizer.chat_template:
        raise UserError(f"model {side.name}: its tokenizer has no chat template; take the model's instruct variant")
    conversation = [message.model_dump() for message in messages]
    try:
        text = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        raise UserError(f"model {side.name}: its chat template refuses the conversation ({error})") from None
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    context = _context(side)
    if context is not None and len(ids) >= context:
        raise UserError(
            f"prompt {messages[-1].content[:40]!r}...: {len(ids)} tokens, which leaves no room for an answer in the "
            f"{context} tokens that {side.name} can read; shorten it"
        )
    return ids


class _Row:
    """One growing answer, up to its first end token."""

    def __init__(self, side: Side) -> None:
        self._tokenizer = side.tokenizer
        self._ends = set(_end_tokens(side))
        self._ids: list[int] = []
        self._ended = False
        self.text = ""

    def add(self, token: int) -> None:
        if self._ended:
            return
        self._ended = token in self._ends
        if not self._ended:
            self._ids.append(token)
            # A character whose bytes are not all there yet waits for the rest.
            whole = self.whole
            self.text = self.text if whole.endswith(INCOMPLETE) else whole

    @property
    def whole(self) -> str:
        """The answer as the tokenizer gives it, a character cut in two included."""
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True))


class _Streamer:
    """Hands each step's tokens on; the first call brings the prompts, which nobody waits for."""

    def __init__(self, tokens: "SimpleQueue[Any]") -> None:
        self._tokens = tokens
        self._prompts_seen = False

    def put(self, step: Any) -> None:
        if self._prompts_seen:
            self._tokens.put(step.tolist())
        self._prompts_seen = True

    def end(self) -> None:
        """The end is told by generate's return."""


def _generate(
    side: Side,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    streamer: "_Streamer | None" = None,
    stop: Callable[[], bool] = lambda: False,
    cache: Any = None,
) -> list[list[int]]:
    """What transformers generates after each prompt, with ends and padding; `cache` holds what was read before."""
    import torch
    from transformers import StoppingCriteriaList

    width = max(map(len, prompts))
    ends = _end_tokens(side)
    pad = ends[0] if side.tokenizer.pad_token_id is None else side.tokenizer.pad_token_id
    device = side.model.device
    # On the left, so that every answer begins where its prompt ends.
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    choice = (
        {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        if sampling.temperature
        else {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    )
    stopping = StoppingCriteriaList([lambda ids, *_, **__: torch.full((len(ids),), stop(), device=ids.device)])
    output = side.model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=min(sampling.max_new_tokens, _room(side, width)),
        past_key_values=cache,
        eos_token_id=ends,
        pad_token_id=pad,
        streamer=streamer,
        stopping_criteria=stopping,
        **choice,
    )
    return [row[width:] for row in output.tolist()]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers from this seed, and afterwards the caller's as if nothing had been drawn."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _can_share_a_batch(sides: tuple[Side, Side]) -> bool:
    """Whether the sides have one backbone, and adapters whose rows PEFT can mix, which it can't with DoRA."""
    dora = any(config.use_dora for config in getattr(sides[0].model, "peft_config", {}).values())
    return sides[0].model is sides[1].model and not dora


@contextmanager
def _mixed_batch(sides: tuple[Side, Side]) -> Iterator[None]:
    """Each row of a batch by its own side's adapter, by PEFT's mixed batches.

    PEFT's own `generate(adapter_names=...)` does the same, but a fault in it leaves the names in force for ever.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in sides[0].model.modules() if isinstance(module, BaseTunerLayer)]
    names = []
    for side in sides:
        with side.active():
            names.append("__base__" if layers[0].disable_adapters else layers[0].active_adapters[0])
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: (args, {**kwargs, "adapter_names": names}), with_kwargs=True
        )
        for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _context(side: Side) -> int | None:
    """How many tokens the model can read, where it says so."""
    return getattr(side.model.config, "max_position_embeddings", None)


def _room(side: Side, width: int) -> int:
    """How many tokens fit behind a prompt of so many."""
    return (_context(side) or width + MAX_NEW_TOKENS) - width


def _end_tokens(side: Side) -> list[int]:
    """The tokenizer's EOS, which answers were trained to end with, and those that the model brings."""
    brought = side.model.generation_config.eos_token_id
    listed = brought if isinstance(brought, list) else [brought]
    return list(dict.fromkeys(token for token in [side.tokenizer.eos_token_id, *listed] if token is not None))
