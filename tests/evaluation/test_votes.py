"""Win rates and strengths from votes, against statsmodels on the same design, and where there are none."""

import json
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm

from evaluation.report import write_report
from evaluation.results import Results, write_results, write_samples
from evaluation.votes import bradley_terry, of_models, win_interval
from feedback.database import Database
from feedback.schema import Candidate, Judgement, Rater, Response, user_message
from feedback.workspace import Workspace

VOTES = {("a", "base"): 14.5, ("base", "a"): 7.5, ("b", "base"): 6, ("base", "b"): 9, ("a", "b"): 11, ("b", "a"): 4}


def test_strengths_and_intervals_are_those_of_a_logistic_regression() -> None:
    names, rows, wins = ["a", "b", "c"], [], []
    votes = {**VOTES, ("c", "b"): 3, ("b", "c"): 2}
    for one, other in (("a", "base"), ("b", "base"), ("a", "b"), ("c", "b")):
        rows.append([float(name == one) - float(name == other) for name in names])
        wins.append([votes[(one, other)], votes[(other, one)]])
    fitted = sm.GLM(np.array(wins), np.array(rows), family=sm.families.Binomial()).fit(tol=1e-12)
    found = {each.model: each for each in bradley_terry(votes, "base") or ()}
    for place, name in enumerate(names):
        low, high = fitted.conf_int()[place]
        assert found[name].strength == pytest.approx(fitted.params[place], abs=1e-6)
        assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=1e-5)
    assert (found["base"].strength, found["base"].low, found["base"].high) == (0, 0, 0)
    order = [each.strength for each in bradley_terry(votes, "base") or ()]
    assert order == sorted(order, reverse=True)


def test_of_two_models_it_is_the_odds() -> None:
    (strong, _) = bradley_terry({("a", "base"): 30, ("base", "a"): 10}, "base") or ()
    assert strong.strength == pytest.approx(np.log(3))
    assert strong.high - strong.strength == pytest.approx(1.959964 * np.sqrt(1 / 30 + 1 / 10))


@pytest.mark.parametrize(
    "votes",
    [
        {("a", "base"): 5},
        {**VOTES, ("c", "b"): 3},
        {**VOTES, ("c", "d"): 1, ("d", "c"): 1},
    ],
    ids=["never lost", "one never lost", "never compared"],
)
def test_strengths_that_nothing_bounds_are_not_given(votes: dict[tuple[str, str], float]) -> None:
    assert bradley_terry(votes, "base") is None


def test_half_a_win_widens_the_interval() -> None:
    assert win_interval(5.5, 10)[0] == win_interval(5, 10)[0]
    assert win_interval(5.5, 10)[1] == win_interval(6, 10)[1]


def vote(workspace: Workspace, number: int, models: tuple[str, str], preferred: object, **more: object) -> None:
    answers = more.pop("answers", ("one", "two"))
    candidate = Candidate(
        prompt=user_message(f"{number}?"),
        responses=tuple(Response(text=text, model=model) for text, model in zip(answers, models, strict=True)),
    )
    rater = Rater(kind=more.pop("kind", "human"), name="ann")
    judgement = Judgement(candidate_id=candidate.id, rater=rater, source="compare-app", preferred=preferred)
    with Database(workspace.database) as database:
        database.add("compare", candidates=[candidate], judgements=[judgement])


def test_votes_of_people_on_these_models_count_and_no_others(workspace: Workspace) -> None:
    assert of_models(workspace, "base", ["a", "b"]) is None
    for number, (models, preferred) in enumerate(
        [
            (("base", "a"), 1),
            (("a", "base"), 0),
            (("base", "a"), 0),
            (("base", "a"), "tie"),
            (("base", "b"), "both bad"),
            (("a", "b"), 1),
            (("base", "stranger"), 1),
        ]
    ):
        vote(workspace, number, models, preferred)
    vote(workspace, 7, ("base", "a"), 1, kind="script")
    vote(workspace, 8, ("base", "a"), 1, answers=("same", "same"))
    found = of_models(workspace, "base", ["a", "b"])
    assert found
    assert [(rate.model, rate.n, rate.rate) for rate in found.rates] == [("a", 4, 2.5 / 4), ("b", 1, 0.5)]
    assert {each.model for each in found.strengths} == {"base", "a", "b"}
    alone = of_models(workspace, "base", ["a"])
    assert alone
    assert alone.strengths == ()


def test_a_report_shows_them(workspace: Workspace, tmp_path: Path) -> None:
    vote(workspace, 0, ("base", "a"), 1)
    vote(workspace, 1, ("base", "a"), 0)
    vote(workspace, 2, ("b", "a"), "tie")
    results = Results.model_validate(
        {
            "report_id": "eval-1",
            "base": "base",
            "tuned": "a",
            "also": {"b": {"gained": 0, "lost": 0}},
            "comparisons": [],
            "flips": {"gained": 0, "lost": 0},
            "command": "veritune eval a b",
            "suite": "quick",
            "limit": None,
            "tasks": {},
            "environment": {},
            "hardware": "",
            "votes": of_models(workspace, "base", ["a", "b"]),
        }
    )
    write_samples(tmp_path, [])
    write_results(tmp_path, results)
    write_report(tmp_path, results)
    page = (tmp_path / "report.html").read_text()
    assert "People's votes" in page
    assert "0.500" in page
    assert "All models on one scale" in page
    assert json.loads((tmp_path / "results.json").read_text())["votes"]["rates"][0]["n"] == 2
