"""A model on this machine as a text generator, with or without a run's adapter."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from evaluation.generation import MAX_NEW_TOKENS, Sampling, encode_prompt, sample_answers
from evaluation.harness import Side
from evaluation.sides import load_side
from feedback.argilla.progress import Progress
from feedback.constitution.cache import AnswerCache, request_key
from feedback.constitution.generators import Answer, Request
from feedback.errors import UserError
from feedback.files import content_hash
from feedback.schema import user_message
from feedback.workspace import Workspace
from training import models, runs


@dataclass(frozen=True)
class _Row:
    """A request with its tokens, and all the places at which it stands."""

    key: str
    request: Request
    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    places: list[int]

    @property
    def kind(self) -> tuple[bool, int, float, int]:
        """Rows of one kind can share a batch."""
        return bool(self.options), self.request.max_tokens, self.request.temperature, self.request.n


class LocalModel:
    """One loaded model.

    Args:
        side: the model with its tokenizer, and how its adapter is put in effect.
        identity: what its answers depend on, e.g. a hash of its weights; equal ones share the cache.
        cache: folder of the answers that were given already.
        batch_size: answers that are worked out at a time.

    Raises:
        UserError: its tokenizer can't form a conversation.
    """

    def __init__(self, side: Side, identity: str, cache: Path, batch_size: int = 32) -> None:
        encode_prompt(side, user_message("?"))
        self.side, self.identity, self.cache, self.batch_size = side, identity, cache, batch_size
        self.name = side.name

    def answer(self, requests: Iterable[Request], say: Callable[[str], None]) -> Iterator[tuple[int, Answer]]:
        """Answers batch by batch, the longest prompts first; a batch is in the cache before it is given.

        An option's probability is that of all its tokens as the first ones of the assistant's turn.

        Raises:
            UserError: several answers are wanted at temperature 0.
        """
        rows, refused = self._rows(requests)
        yield from ((place, Answer(error=reason)) for place, reason in refused)
        progress = Progress(len(rows), self.name, say)
        with AnswerCache(self.cache) as cache:
            # Batches are made of all rows, known or not: a job that goes on where it was makes the same ones.
            for batch in self._batches(rows):
                known = {row.key: answer for row in batch if (answer := cache.get(row.key))}
                new = [row for row in batch if row.key not in known]
                made = dict(zip((row.key for row in new), self._work_out(new), strict=True)) if new else {}
                cache.put(made.items())
                progress.total -= len(known)
                progress.step(len(new))
                yield from ((place, (known | made)[row.key]) for row in batch for place in row.places)

    def _rows(self, requests: Iterable[Request]) -> tuple[list[_Row], list[tuple[int, str]]]:
        rows: dict[str, _Row] = {}
        refused = []
        for place, request in enumerate(requests):
            key = request_key(self.identity, request)
            if key in rows:
                rows[key].places.append(place)
                continue
            try:
                prompt = tuple(encode_prompt(self.side, request.messages))
            except UserError as error:
                refused.append((place, str(error)))
                continue
            options = self._option_tokens(request, prompt)
            rows[key] = _Row(key, request, prompt, options, [place])
        return list(rows.values()), refused

    def _option_tokens(self, request: Request, prompt: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Each option as it is tokenized after the prompt."""
        tokenizer = self.side.tokenizer
        conversation = [message.model_dump() for message in request.messages]
        text = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        found = []
        for option in request.options:
            whole = tuple(tokenizer(text + option, add_special_tokens=False)["input_ids"])
            alone = tuple(tokenizer(option, add_special_tokens=False)["input_ids"])
            # Where tokens merge across the boundary, the prompt's stay what a generating model would see.
            found.append(whole[len(prompt) :] if whole[: len(prompt)] == prompt else alone)
        return tuple(found)

    def _batches(self, rows: Sequence[_Row]) -> Iterator[list[_Row]]:
        """Rows of one kind and of nearly one length."""
        ordered = sorted(rows, key=lambda row: (row.kind, -len(row.prompt), row.key))
        for _, group in groupby(ordered, key=lambda row: row.kind):
            alike = list(group)
            size = max(1, self.batch_size // max(alike[0].request.n, *(len(row.options) for row in alike), 1))
            yield from (alike[start : start + size] for start in range(0, len(alike), size))

    def _work_out(self, rows: Sequence[_Row]) -> list[Answer]:
        if rows[0].options:
            logprobs = self._option_logprobs(rows)
            return [Answer(options=of_row, tokens=len(row.prompt)) for row, of_row in zip(rows, logprobs, strict=True)]
        request = rows[0].request
        sampling = Sampling(
            temperature=request.temperature,
            max_new_tokens=min(request.max_tokens, MAX_NEW_TOKENS),
            # The keys hold the requests' own seeds; batches with one seed would draw the same random numbers.
            seed=int(content_hash([row.key for row in rows])[:8], 16),
        )
        prompts = [row.request.messages for row in rows]
        answers = sample_answers(self.side, prompts, request.n, sampling, self.batch_size)
        tokenizer = self.side.tokenizer
        return [
            Answer(
                tuple(texts), tokens=request.n * len(row.prompt) + sum(len(tokenizer(t)["input_ids"]) for t in texts)
            )
            for row, texts in zip(rows, answers, strict=True)
        ]

    def _option_logprobs(self, rows: Sequence[_Row]) -> list[tuple[float, ...]]:
        """Exact log-probabilities; options that differ in their last token only share a forward pass."""
        import torch

        inputs = list(dict.fromkeys(row.prompt + option[:-1] for row in rows for option in row.options))
        longest = max(len(option) for row in rows for option in row.options)
        width = max(map(len, inputs))
        device = self.side.model.device
        # On the left, so that every row's last tokens are the options'.
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in inputs], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in inputs], device=device)
        with self.side.active(), torch.no_grad():
            logits = self.side.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                logits_to_keep=longest,
                use_cache=False,
            ).logits
        logprobs = logits.float().log_softmax(-1).cpu()
        index = {row: number for number, row in enumerate(inputs)}
        return [
            tuple(
                logprobs[index[row.prompt + option[:-1]], -len(option) :]
                .gather(-1, torch.tensor(option)[:, None])
                .sum()
                .item()
                for option in row.options
            )
            for row in rows
        ]


def load(workspace: Workspace, name: str) -> LocalModel:
    """A finished run's tuned model by the run's id, or a model by its folder or hub name.

    Raises:
        UserError: neither, or a model that can't be loaded.
    """
    if name in (run.id for run in runs.list_runs(workspace)):
        run = runs.find(workspace, name)
        run.verify_weights()
        side = load_side(run)
        return LocalModel(side, str(side.identity), workspace.cache)
    tokenizer = models.load_tokenizer(name)
    identity = content_hash([models.model_hash(name), tokenizer.chat_template])
    short = models.short_name(name)
    return LocalModel(Side(short, models.load_base(name).eval(), tokenizer, nullcontext), identity, workspace.cache)
