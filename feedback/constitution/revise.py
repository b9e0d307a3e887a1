"""`feedback revise`: a model criticises and rewrites answers by drawn principles; the last versions are demonstrations.

The supervised stage of Constitutional AI (arXiv 2212.08073, section 3.1).
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice

from feedback.argilla.progress import Progress
from feedback.constitution.generators import Request, TextGenerator
from feedback.constitution.principles import Constitution, Principle, draw, for_workspace
from feedback.constitution.steps import Revision, Step, Steps, steps_path
from feedback.database import Database
from feedback.schema import REVISION, Candidate, Demonstration, Judgement, Message, Rater, Response, grounded_prompt
from feedback.workspace import Workspace

SUPPOSED = "The model's own revision is taken to be better than what it revised; nobody has compared the two."
# So many answers are revised and written together, in the collection's order.
CHUNK = 500
ONLY = "Write the new answer only, with no word about what was changed."
LABEL = re.compile(r"\A\s*(?:\*\*)?(?:revision|revised (?:answer|response))(?:\*\*)?\s*:(?:\*\*)?\s*", re.IGNORECASE)


@dataclass
class Revised:
    """What a job did.

    Args:
        new: answers revised, `unchanged` of them into the same words; `standing` were revised before.
        pairs: first and last versions that stand as preference pairs.
        outside: answers to which no principle applies.
        empty: answers of which the model had a critique or a revision without a word.
        unanswered: answers whose requests failed, for these `reasons`; they are asked again another time.
    """

    new: int = 0
    standing: int = 0
    unchanged: int = 0
    demonstrations: int = 0
    pairs: int = 0
    outside: int = 0
    empty: int = 0
    unanswered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def revise(
    workspace: Workspace,
    generator: TextGenerator,
    collection: str,
    rounds: int,
    max_tokens: int,
    seed: int,
    pairs: bool,
    say: Callable[[str], None],
) -> Revised:
    """Revise the first answer of every candidate that this model has not revised so before.

    Args:
        rounds: of critique and revision, each by a drawn principle and on what the round before made.
        max_tokens: after which a critique or a revision is cut.
        pairs: also keep first and last version as a preference pair, with its own source.

    Raises:
        UserError: no such collection, or the model can't be asked; what it answered is in its cache.
    """
    constitution = for_workspace(workspace)
    result = Revised()
    with Database(workspace.database) as database:
        database.require([collection])
        with Steps(steps_path(workspace, collection)) as steps:
            progress = Progress(
                database.collections()[collection]["candidates"], f"{generator.name} revises {collection}", say
            )
            # Pairs that revisions made are no answers to begin with.
            candidates = (c for c in database.candidates([collection]) if REVISION not in c.metadata)
            while chunk := list(islice(candidates, CHUNK)):
                job = (generator.name, constitution.name, seed, max_tokens, rounds)
                standing = [known for c in chunk if (known := steps.known.get((c.id, *job)))]
                done = {revision.candidate_id for revision in standing}
                left = [candidate for candidate in chunk if candidate.id not in done]
                pending = [Draft(c, constitution, seed) for c in left if constitution.applicable(c)]
                result.outside += len(left) - len(pending)
                finished = _rounds(generator, pending, rounds, max_tokens, result, say)
                new = [draft.revision(generator.name, max_tokens) for draft in finished]
                steps.add(new)
                result.new += len(new)
                result.standing += len(standing)
                result.unchanged += sum(revision.steps[-1].revision == revision.response for revision in new)
                by_id = {candidate.id: candidate for candidate in chunk}
                made = [(by_id[revision.candidate_id], revision) for revision in standing + new]
                _store(database, collection, made, pairs, result)
                progress.total -= len(chunk) - len(pending)
                progress.step(len(pending))
    return result


@dataclass
class Draft:
    """An answer on its way."""

    candidate: Candidate
    constitution: Constitution
    seed: int
    steps: list[Step] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.steps[-1].revision if self.steps else self.candidate.responses[0].text

    @property
    def principle(self) -> Principle:
        """The one of this round."""
        applicable = self.constitution.applicable(self.candidate)
        return draw(applicable, self.seed, self.candidate.id, "revise", len(self.steps))

    def critique_request(self, max_tokens: int) -> Request:
        return Request(self._conversation(), max_tokens, seed=self.seed)

    def revision_request(self, critique: str, max_tokens: int) -> Request:
        said = (Message(role="assistant", content=critique), Message(role="user", content=_asked(self.principle)))
        return Request((*self._conversation(), *said), max_tokens, seed=self.seed)

    def revision(self, model: str, max_tokens: int) -> Revision:
        """All of its steps, for keeping."""
        first = self.candidate.responses[0].text
        return Revision(
            candidate_id=self.candidate.id,
            model=model,
            constitution=self.constitution.name,
            seed=self.seed,
            max_tokens=max_tokens,
            response=first,
            steps=tuple(self.steps),
        )

    def _conversation(self) -> tuple[Message, ...]:
        """Up to the critique's request: the principle's examples, the prompt, and the answer as it is now."""
        prompt = grounded_prompt(self.candidate.prompt, self.candidate.context)
        system = 1 if prompt[0].role == "system" else 0
        critique, asked = self.principle.critique, _asked(self.principle)
        examples = (
            Message(role="assistant" if place % 2 else "user", content=text)
            for e in self.principle.revision_examples
            for place, text in enumerate((e.prompt, e.response, critique, e.critique, asked, e.revision))
        )
        return (
            *prompt[:system],
            *examples,
            *prompt[system:],
            Message(role="assistant", content=self.text),
            Message(role="user", content=critique),
        )


def _rounds(
    generator: TextGenerator,
    drafts: list[Draft],
    rounds: int,
    max_tokens: int,
    result: Revised,
    say: Callable[[str], None],
) -> list[Draft]:
    """The drafts that came through all rounds."""
    for _ in range(rounds):
        critiques = _texts(generator, [draft.critique_request(max_tokens) for draft in drafts], result, say)
        drafts = [drafts[place] for place in critiques]
        requests = [d.revision_request(c, max_tokens) for d, c in zip(drafts, critiques.values(), strict=True)]
        revisions = _texts(generator, requests, result, say)
        criticised = list(zip(drafts, critiques.values(), strict=True))
        drafts = []
        for place, text in revisions.items():
            draft, critique = criticised[place]
            draft.steps.append(Step(principle=draft.principle.id, critique=critique, revision=text))
            drafts.append(draft)
    return drafts


def _texts(
    generator: TextGenerator, requests: Sequence[Request], result: Revised, say: Callable[[str], None]
) -> dict[int, str]:
    """What was said to each request, in their order; those without an answer are counted and left out."""
    texts = {}
    for place, answer in generator.answer(requests, say) if requests else ():
        if answer.error is not None:
            result.unanswered += 1
            result.reasons[answer.error] += 1
        elif text := LABEL.sub("", answer.texts[0]).strip():
            texts[place] = text
        else:
            result.empty += 1
    return dict(sorted(texts.items()))


def _asked(principle: Principle) -> str:
    return f"{principle.revision} {ONLY}"


def _store(
    database: Database, collection: str, made: Sequence[tuple[Candidate, Revision]], pairs: bool, result: Revised
) -> None:
    demonstrations = [
        Demonstration(
            prompt=grounded_prompt(candidate.prompt, candidate.context),
            completion=revision.steps[-1].revision,
            provenance=f"{REVISION}:{revision.id}",
        )
        for candidate, revision in made
    ]
    changed = [_pair(*each) for each in made if each[1].steps[-1].revision != each[1].response] if pairs else []
    counts = database.add(collection, [c for c, _ in changed], [j for _, j in changed], demonstrations)
    result.demonstrations += counts.demonstrations
    result.pairs += counts.judgements


def _pair(candidate: Candidate, revision: Revision) -> tuple[Candidate, Judgement]:
    """First and last version, in an order that does not tell which is which."""
    last = Response(text=revision.steps[-1].revision, model=revision.model)
    responses = sorted((candidate.responses[0], last), key=lambda response: sha256(response.text.encode()).digest())
    pair = Candidate(
        prompt=candidate.prompt,
        context=candidate.context,
        responses=tuple(responses),
        metadata={REVISION: revision.id},
    )
    judgement = Judgement(
        candidate_id=pair.id,
        # Not the judge of this name: how often people agree that its revisions are better is another figure.
        rater=Rater(kind="ai", name=f"{revision.model} revising"),
        source=REVISION,
        preferred=responses.index(last),
        rationale=SUPPOSED,
        evidence={"constitution": revision.constitution, "revision": revision.id},
    )
    return pair, judgement
