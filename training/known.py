"""Does the base know what a dataset is to teach it? Facts that it doesn't know teach it to invent.

"Does fine-tuning LLMs on new knowledge encourage hallucinations?" (Gekhman et al., arXiv 2405.05904), section 3: a
fact's question is asked behind several sets of four examples, greedily and sampled, and the shares of right answers say
how well it is known. The paper takes 10 sets and 16 samples at temperature 0.5; here it is 4 and 4.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feedback.curation.intervals import wilson
from training import models
from training.abstention import abstains
from training.matching import matches
from training.prepare import Prepared
from training.recipe import SFTRecipe
from training.runs import Run

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

CATEGORIES = ("HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown")
EXAMPLE_SETS, SHOTS, SAMPLES = 4, 4, 4
# So low a temperature takes the likeliest token.
TEMPERATURE, GREEDY = 0.5, 1e-4
# A longer completion is a text, whose truth no comparison of words can tell.
MOST_TOKENS = 24
# From this share of unknown facts on a run begins with a warning.
MOST_UNKNOWN = 0.2
# What is asked where the recipe leaves it open: on a GPU it takes seconds, on a processor minutes.
ASKED_ON_A_GPU = 64
SECONDS_BETWEEN_WORDS = 3
# Decoding keeps keys and values only: so many times the rows of a training batch fit into the same memory.
ROWS_OF_A_BATCH = 8

Fact = Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """How many of the facts that were asked fall into each category, and how many rows there were to ask."""

    counts: Mapping[str, int]
    facts: int
    rows: int

    @property
    def asked(self) -> int:
        return sum(self.counts.values())

    def manifest(self) -> dict[str, Any]:
        """What the run keeps."""
        low, high = wilson(self.counts["Unknown"], self.asked)
        share = self.counts["Unknown"] / self.asked
        return {**self.counts, "asked": self.asked, "facts": self.facts, "unknown": share, "unknown_95": [low, high]}

    def lines(self) -> list[str]:
        """What the person is told."""
        found = self.manifest()
        counts = ", ".join(f"{self.counts[name]} {name}" for name in CATEGORIES)
        low, high = found["unknown_95"]
        said = [
            f"of {self.asked} facts asked ({self.facts} of {self.rows} rows are short enough to be one), the model "
            f"knows {counts}; unknown: {found['unknown']:.0%} ({low:.0%} to {high:.0%}, 95%)"
        ]
        if found["unknown"] > MOST_UNKNOWN:
            said.append(
                f"warning: more than {MOST_UNKNOWN:.0%} of the facts are unknown to the model: learning them by heart "
                "teaches it to invent others (arXiv 2405.05904); set early_stopping, or leave them out"
            )
        return said


def category(greedy: Sequence[bool], sampled: Sequence[bool]) -> str:
    """SliCK (section 3, table 2): by the shares of right answers, greedy over the sets of examples, and sampled."""
    if all(greedy):
        return "HighlyKnown"
    if any(greedy):
        return "MaybeKnown"
    return "WeaklyKnown" if any(sampled) else "Unknown"


def ask_once(
    run: Run, recipe: SFTRecipe, rows: Sequence[Fact], prepared: Prepared, model: Any, report: Callable[[str], None]
) -> None:
    """Probe what a run is to teach before it does, unless it was done, and keep what came of it in the manifest."""
    count = recipe.probe if recipe.probe is not None else ASKED_ON_A_GPU * (model.device.type == "cuda")
    if not count or "known" in run.manifest:
        return
    tokenizer, at_once = prepared.tokenizer, ROWS_OF_A_BATCH * recipe.batch_size
    context = models.context(prepared.config, tokenizer) or prepared.max_length
    found = probe(model, tokenizer, rows, count, recipe.seed, context, at_once, report)
    if found is None:
        report(f"probe: no demonstration has {MOST_TOKENS} tokens or fewer, as a fact would")
        return
    for line in found.lines():
        report(line)
    run.update(known=found.manifest())


def probe(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[Fact],
    count: int,
    seed: int,
    context: int,
    at_once: int,
    report: Callable[[str], None],
) -> Known | None:
    """Ask the model as it is what up to `count` demonstrations are to teach it; None where no row is a fact.

    Args:
        rows: prompts and completions.
        context: tokens that the model can read.
        at_once: answers that are sampled together.
    """
    import torch

    facts = [row for row in rows if _is_fact(tokenizer, row)]
    asked = random.Random(seed).sample(facts, min(count, len(facts)))
    if not asked:
        return None
    examples = _ExampleSets(facts, random.Random(seed))
    generator = torch.Generator().manual_seed(seed)
    together = max(1, at_once // (EXAMPLE_SETS * SAMPLES))
    counts: Counter[str] = Counter()
    began = told = time.monotonic()
    was_training = model.training
    model.eval()
    for start in range(0, len(asked), together):
        part = asked[start : start + together]
        prompts = [_behind_examples(tokenizer, fact, shown, context) for fact in part for shown in examples.of(fact)]
        greedy, sampled = (
            _answers(model, tokenizer, prompts, times, temperature, generator, at_once)
            for times, temperature in ((1, GREEDY), (SAMPLES, TEMPERATURE))
        )
        for place, fact in enumerate(part):
            right = [
                [matches(answer, fact["completion"]) for answer in answers[place * each : (place + 1) * each]]
                for answers, each in ((greedy, EXAMPLE_SETS), (sampled, EXAMPLE_SETS * SAMPLES))
            ]
            counts[category(*right)] += 1
        now, done = time.monotonic(), start + len(part)
        if now - told > SECONDS_BETWEEN_WORDS:
            told = now
            left = (now - began) / done * (len(asked) - done)
            report(f"asked {done} of {len(asked)} facts, about {left:.0f} s left")
    model.train(was_training)
    return Known({name: counts[name] for name in CATEGORIES}, len(facts), len(rows))


class _ExampleSets:
    """Facts that are shown before a question, others each time, and never the question itself."""

    def __init__(self, facts: Sequence[Fact], rng: random.Random) -> None:
        self._facts, self._rng = facts, rng

    def of(self, fact: Fact) -> list[list[Fact]]:
        drawn = [self._rng.sample(self._facts, min(2 * SHOTS, len(self._facts))) for _ in range(EXAMPLE_SETS)]
        return [[other for other in some if other["prompt"] != fact["prompt"]][:SHOTS] for some in drawn]


def _is_fact(tokenizer: "PreTrainedTokenizerBase", row: Fact) -> bool:
    completion = row["completion"]
    short = len(tokenizer(completion, add_special_tokens=False)["input_ids"]) <= MOST_TOKENS
    return short and bool(completion.strip()) and not abstains(completion)


def _behind_examples(
    tokenizer: "PreTrainedTokenizerBase", fact: Fact, examples: Sequence[Fact], context: int
) -> list[int]:
    """Token ids of the question behind as many of the examples as leave room for an answer."""
    asked = list(fact["prompt"])
    first = [asked.pop(0)] if asked[0]["role"] == "system" else []
    while True:
        shown = [
            message
            for example in examples
            for message in (
                *(message for message in example["prompt"] if message["role"] != "system"),
                {"role": "assistant", "content": example["completion"]},
            )
        ]
        text = tokenizer.apply_chat_template([*first, *shown, *asked], add_generation_prompt=True, tokenize=False)
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        if not examples or len(ids) + MOST_TOKENS < context:
            return ids[-(context - MOST_TOKENS - 1) :]
        examples = examples[:-1]


def _answers(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[list[int]],
    times: int,
    temperature: float,
    generator: "torch.Generator",
    at_once: int,
) -> list[str]:
    """So many answers to each prompt, one after the other."""
    import torch

    from training.ppo.rollouts import sample

    repeated = [prompt for prompt in prompts for _ in range(times)]
    # Of its own generator: training draws what it would have drawn without the probe.
    uniforms = torch.rand(len(repeated), MOST_TOKENS + 1, generator=generator).to(model.device)
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    found = sample(model, repeated, uniforms, temperature, eos, pad, at_once).tokens
    return list(tokenizer.batch_decode(found, skip_special_tokens=True))
