"""Further answers to the questions of a task, to see whether a model says the same when it is asked again."""

import sys
from collections.abc import Callable, Sequence

from evaluation.generation import Sampling, sample_encoded
from evaluation.harness import Answer, Side, identity
from evaluation.task_sources import TaskSource
from feedback.argilla.progress import Progress
from feedback.cache import Cache
from feedback.files import content_hash

# lm-eval's own, for tasks that say nothing.
MAX_NEW_TOKENS = 256


def draw(
    side: Side,
    task: TaskSource,
    answers: Sequence[Answer],
    count: int,
    temperature: float,
    batch_size: int,
    cache: Cache | None,
    report: Callable[[str], None],
) -> list[list[str]]:
    """`count` further answers to each prompt, asked and cut as the task asks and cuts.

    Args:
        cache: of the workspace; None draws everything anew.
    """
    asked = task.config["generation_kwargs"]
    room = asked.get("max_gen_toks", MAX_NEW_TOKENS)
    context: int = getattr(side.model.config, "max_position_embeddings", None) or sys.maxsize
    if context <= MAX_NEW_TOKENS:
        # As the harness does for models of so small a context.
        room = context // 4
    sampling = Sampling(temperature=temperature, max_new_tokens=room)
    progress = Progress(count * len(answers), f"{task.name}: {side.name}, asked again", report)
    prompts = [_encoded(side, answer.prompt)[-max(1, context - room) :] for answer in answers]
    who, size = identity(side) if cache else None, max(1, batch_size // count)
    drawn: list[list[str]] = []
    # Drawn batch by batch, each from a seed of its own, so that what is left of an evaluation is drawn the same.
    for batch in (prompts[start : start + size] for start in range(0, len(prompts), size)):
        key = content_hash([who, "samples", batch, count, sampling.model_dump()])
        found = cache.find(key) if cache and who else None
        if found is None:
            seeded = sampling.model_copy(update={"seed": int(content_hash(batch)[:8], 16)})
            found = sample_encoded(side, batch, count, seeded, batch_size)
            if cache and who:
                cache.keep([(key, found)])
        drawn += found
        progress.step(count * len(batch))
    return [[_cut(text, asked["until"]) for text in of_answer] for of_answer in drawn]


def _encoded(side: Side, prompt: str) -> list[int]:
    """A rendered prompt as lm-eval encodes it."""
    bos = side.tokenizer.bos_token
    ids: list[int] = side.tokenizer(prompt, add_special_tokens=not (bos and prompt.startswith(bos)))["input_ids"]
    return ids


def _cut(text: str, until: Sequence[str]) -> str:
    """A text up to where the task stops reading."""
    return text[: min((place for stop in until if (place := text.find(stop)) >= 0), default=len(text))].strip()
