"""Votes of the compare page: two answers as a person saw them, and what became of the feedback."""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evaluation.votes import win_interval
from feedback.database import Database
from feedback.schema import BOTH_BAD, TIE, Candidate, Judgement, Message, Rater, Response
from feedback.workspace import Workspace

COLLECTION = "compare"
SOURCE = "compare-app"
Choice = Literal["A", "B", "tie", "both bad"]


@dataclass(frozen=True)
class Shown:
    """A finished comparison.

    Args:
        candidate: its responses are the base's and the tuned model's, in this order.
        order: which response stands at A, and which at B.
    """

    candidate: Candidate
    order: tuple[int, int]

    @property
    def identical(self) -> bool:
        return len({response.text for response in self.candidate.responses}) == 1

    def preferred(self, choice: Choice) -> int | Literal["tie", "both bad"]:
        """What was voted for, whichever side it stood on."""
        return choice if choice == "tie" or choice == "both bad" else self.order["AB".index(choice)]


@dataclass(frozen=True)
class Tally:
    """How the standing votes on one tuned model against one base fell; a tie is a vote of `both bad` too."""

    tuned: int
    base: int
    ties: int

    @property
    def n(self) -> int:
        return self.tuned + self.base + self.ties

    @property
    def rate(self) -> float:
        """The tuned model's share of the votes, a tie counted half."""
        return (self.tuned + self.ties / 2) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval; with half a vote over, the wider of the two that enclose it."""
        return win_interval(self.tuned + self.ties / 2, self.n)


def shown(
    prompt: Sequence[Message],
    context: str | None,
    names: tuple[str, str],
    answers: tuple[str, str],
    order: tuple[int, int],
    settings: dict[str, Any],
) -> Shown:
    """A comparison whose answers are whole.

    Args:
        names, answers: of the base and of the tuned model.
        settings: how the answers came about; kept beside them.
    """
    responses = tuple(Response(text=text, model=name) for name, text in zip(names, answers, strict=True))
    return Shown(Candidate(prompt=tuple(prompt), context=context, responses=responses, metadata=settings), order)


def record(workspace: Workspace, comparison: Shown, choice: Choice, rationale: str, rewrite: str) -> None:
    """Keep a vote; a second one on the same answers by the same rater takes its place."""
    judgement = Judgement(
        candidate_id=comparison.candidate.id,
        rater=Rater(kind="human", name=workspace.settings.rater or getpass.getuser()),
        source=SOURCE,
        preferred=comparison.preferred(choice),
        rationale=rationale.strip() or None,
        rewrite=rewrite.strip() or None,
    )
    with Database(workspace.database) as database:
        database.add(COLLECTION, candidates=[comparison.candidate], judgements=[judgement])


def tally(workspace: Workspace, base: str, tuned: str) -> Tally:
    """The standing votes on these two models; votes on identical answers say nothing of either."""
    votes: list[int | str | None] = []
    with Database(workspace.database) as database:
        candidates = {candidate.id: candidate for candidate in database.candidates([COLLECTION])}
        for judgement in database.judgements([COLLECTION]):
            responses = candidates[judgement.candidate_id].responses
            models, texts = [r.model for r in responses], {r.text for r in responses}
            if judgement.source == SOURCE and models == [base, tuned] and len(texts) == 2:
                votes.append(judgement.preferred)
    return Tally(tuned=votes.count(1), base=votes.count(0), ties=votes.count(TIE) + votes.count(BOTH_BAD))
