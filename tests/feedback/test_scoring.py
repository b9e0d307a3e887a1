"""A reward model as a judge of a collection: the probabilities are Bradley and Terry's."""

import math
from collections.abc import Mapping, Sequence

import pytest

from feedback.curation.build import build
from feedback.database import Database
from feedback.schema import Candidate, Judgement, Response, user_message
from feedback.scoring import SOURCE, bradley_terry, judge
from feedback.workspace import Workspace


class Worth:
    """Finds answers as good as they say."""

    name = "reward-1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, prompts: Sequence[Sequence[Mapping[str, str]]], answers: Sequence[str]) -> list[float]:
        assert len(prompts) == len(answers)
        self.asked += [prompt[-1]["content"] for prompt in prompts]
        return [float(answer) for answer in answers]


def candidate(question: str, *worths: str, context: str | None = None) -> Candidate:
    responses = tuple(Response(text=worth) for worth in worths)
    return Candidate(prompt=user_message(question), context=context, responses=responses)


def judgements(workspace: Workspace) -> dict[str, Judgement]:
    with Database(workspace.database) as database:
        questions = {c.id: c.prompt[0].content for c in database.candidates(["main"])}
        return {questions[j.candidate_id]: j for j in database.judgements(["main"])}


def test_a_candidate_is_judged_once_by_the_difference_of_its_scores(workspace: Workspace) -> None:
    with Database(workspace.database) as database:
        database.add(
            "main",
            [
                candidate("two", "1.0", "2.5"),
                candidate("equal", "1.0", "1.00"),
                candidate("one", "3"),
                candidate("same", "3", "3"),
                candidate("three", "0", "2", "1"),
                candidate("grounded", "900", "-900", context="A text."),
            ],
        )
    scorer = Worth()
    first = judge(workspace, scorer, "main", print)
    assert (first.new, first.ties, first.standing, first.single) == (4, 1, 0, 2)
    assert "A text.\n\ngrounded" in scorer.asked
    said = judgements(workspace)
    assert {(j.rater.kind, j.rater.name, j.source) for j in said.values()} == {("ai", "reward-1", SOURCE)}
    assert (said["two"].preferred, said["two"].probability) == (1, pytest.approx(1 / (1 + math.exp(-1.5)), abs=1e-6))
    assert said["two"].evidence == {"scores": "1.000000 2.500000"}
    assert (said["equal"].preferred, said["equal"].probability) == ("tie", 0.5)
    assert said["three"].ranking == ((1,), (2,), (0,))
    assert (said["grounded"].preferred, said["grounded"].probability) == (0, 1.0)

    with Database(workspace.database) as database:
        database.add("main", [candidate("new", "1", "2")])
    second = judge(workspace, scorer, "main", print)
    assert (second.new, second.standing, second.single) == (1, 4, 2)
    version, _ = build(workspace, "main", fractions=(1, 0, 0))
    by_prompt = {row["prompt"][-1]["content"]: row["probability"] for row in version.pairs("train")}
    assert by_prompt["two"] == said["two"].probability


@pytest.mark.parametrize("difference", [0.0, 0.3, -2.0, 40.0, -1000.0, 1000.0])
def test_the_probability_is_the_sigmoid(difference: float) -> None:
    expected = 1 / (1 + math.exp(-difference)) if abs(difference) < 700 else float(difference > 0)
    assert bradley_terry(difference, 0.0) == pytest.approx(expected, abs=1e-12)
    assert bradley_terry(0.0, difference) == pytest.approx(1 - expected, abs=1e-12)
