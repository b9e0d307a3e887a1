"""`feedback generate`: several answers of one model to each prompt, as candidates to be judged."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from feedback.constitution.generators import Request, TextGenerator
from feedback.database import Database
from feedback.errors import UserError
from feedback.formats.fields import Refused, asked, conversation, messages, optional_text
from feedback.formats.rows import read_rows
from feedback.schema import Candidate, Message, Response, grounded_prompt
from feedback.workspace import Workspace

COLLECTION = "collection:"
# So many candidates are written to the database at a time.
WRITTEN_TOGETHER = 100
MISTAKES_TOLD = 20


@dataclass
class Generated:
    """What came of the prompts.

    Args:
        candidates: new ones; `known` were there already.
        repeated: answers that said the same as another one to their prompt, or nothing, and were dropped.
        alike: prompts to which all answers were the same, so that there is nothing to compare.
        unanswered: prompts that got no answer; `reasons` says why, one line for each kind.
    """

    prompts: int = 0
    candidates: int = 0
    known: int = 0
    repeated: int = 0
    alike: int = 0
    unanswered: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """What is asked, with the text that it is asked about."""

    messages: tuple[Message, ...]
    context: str | None = None


def generate(
    workspace: Workspace,
    generator: TextGenerator,
    prompts: list[Prompt],
    collection: str,
    k: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    say: Callable[[str], None],
) -> Generated:
    """Ask for `k` answers to each prompt, and keep those that differ as a candidate.

    Raises:
        UserError: several answers are wanted at temperature 0, or the model can't be asked.
    """
    if k > 1 and temperature == 0:
        raise UserError(f"--temperature 0: the {k} answers to a prompt would be the same one; raise it, or set --k 1")
    result = Generated(prompts=len(prompts))
    reasons: dict[str, None] = {}
    requests = [
        Request(grounded_prompt(prompt.messages, prompt.context), max_new_tokens, temperature, k, seed)
        for prompt in prompts
    ]

    def candidates() -> Iterator[Candidate]:
        for place, answer in generator.answer(requests, say):
            if answer.error:
                result.unanswered += 1
                reasons[answer.error] = None
                continue
            texts = list(dict.fromkeys(text for text in answer.texts if text.strip()))
            result.repeated += k - len(texts)
            if len(texts) < min(k, 2):
                result.alike += 1
                continue
            yield Candidate(
                prompt=prompts[place].messages,
                context=prompts[place].context,
                responses=tuple(Response(text=text, model=generator.name) for text in texts),
                metadata={"temperature": temperature, "seed": seed},
            )

    with Database(workspace.database) as database:
        made = candidates()
        while together := list(islice(made, WRITTEN_TOGETHER)):
            counts = database.add(collection, together)
            result.candidates += counts.candidates
            result.known += counts.known
    result.reasons = tuple(reasons)
    return result


def read_prompts(workspace: Workspace, source: str) -> list[Prompt]:
    """The different prompts of a file, one {"prompt": text or messages} a row, or of `collection:NAME`.

    Raises:
        UserError: there is no such collection or file, or rows hold no prompt; one line for each.
    """
    if source.startswith(COLLECTION):
        name = source.removeprefix(COLLECTION)
        with Database(workspace.database) as database:
            database.require([name])
            return list(dict.fromkeys(Prompt(c.prompt, c.context) for c in database.candidates([name])))
    prompts, mistakes = [], []
    for row in read_rows(source):
        try:
            if row.value is None:
                raise Refused(row.reason)
            prompts.append(_prompt(row.value))
        except Refused as refusal:
            mistakes.append(f"{source}, {row.unit} {row.number}: {refusal}")
    if len(mistakes) > MISTAKES_TOLD:
        mistakes[MISTAKES_TOLD:] = [f"{source}: {len(mistakes) - MISTAKES_TOLD} more rows like these"]
    if mistakes or not prompts:
        raise UserError(*(mistakes or [f'{source}: no prompts; write one {{"prompt": ...}} a line']))
    return list(dict.fromkeys(prompts))


def _prompt(row: dict[str, object]) -> Prompt:
    """A row's prompt, or the conversation in its `messages` without the answer that may end it."""
    if "messages" in row:
        turns = messages(row["messages"], "messages")
        turns = turns[:-1] if turns[-1].role == "assistant" else turns
    else:
        turns = conversation(row.get("prompt"), "prompt")
    if not asked(turns) or turns[-1].role != "user":
        raise Refused(f"it ends with the turn of the {turns[-1].role}, not with the user's")
    return Prompt(turns, optional_text(row, "context"))
