"""Agreement between raters: the reference packages' figures on real data, and the cases where there is none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feedback.curation.agreement import fields_of, pairs_of, said_by_raters
from feedback.database import Database
from feedback.formats import import_file
from feedback.schema import Candidate, Judgement, Rater, Response, Span, user_message
from feedback.workspace import Workspace


def candidate(number: int, answers: int = 2) -> Candidate:
    return Candidate(
        prompt=user_message(f"Question {number}?"),
        responses=tuple(Response(text=f"answer {i}") for i in range(answers)),
    )


def judgement(of: Candidate, rater: str, **said: Any) -> Judgement:
    return Judgement(candidate_id=of.id, rater=Rater(kind="human", name=rater), source="test", **said)


def test_alpha_and_kappa_on_three_real_annotators_equal_the_reference_packages(
    workspace: Workspace, shared_data: Path
) -> None:
    import krippendorff
    from sklearn.metrics import cohen_kappa_score

    path = shared_data / "pandalm" / "human_pairs.jsonl"
    import_file(workspace, "pandalm", path, "panda", {}, None)
    with Database(workspace.database) as database:
        said = said_by_raters(database.candidates(["panda"]), database.judgements(["panda"]))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    given = np.array([[row[f"annotator{k}"] for row in rows] for k in (1, 2, 3)])

    (field,) = fields_of(said)
    assert field.alpha == pytest.approx(krippendorff.alpha(given, level_of_measurement="nominal"), abs=1e-6)
    assert (field.units, field.raters, field.reading) == (653, 3, "reliable")
    assert field.low is not None
    assert field.high is not None
    assert field.low < field.alpha < field.high
    kappas = [cohen_kappa_score(given[a], given[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert [pair.kappa for pair in pairs_of(said)] == pytest.approx(kappas, abs=1e-6)


def test_ratings_are_ordinal_by_answer_and_the_latest_word_counts() -> None:
    import krippendorff

    first, second = [5, 4, 1, 2, 3], [4, 4, 1, 1, 5]
    candidates = [candidate(number) for number in range(5)]
    judgements = [
        judgement(of, name, ratings={"truthful[0]": value})
        for name, values in (("ann", [1, 1, 1, 1, 1]), ("ann", first), ("bob", second))
        for of, value in zip(candidates, values, strict=True)
    ]
    (field,) = fields_of(said_by_raters(candidates, judgements))
    assert (field.field, field.scale, field.units) == ("truthful", "ordinal", 5)
    expected = krippendorff.alpha(np.array([first, second], dtype=float), level_of_measurement="ordinal")
    assert field.alpha == pytest.approx(expected, abs=1e-9)


def test_a_ranking_states_its_pairs_and_an_unmarked_answer_is_one_too() -> None:
    of = candidate(0, answers=3)
    ann = judgement(of, "ann", ranking=((0,), (1, 2)), spans=(Span(response=2, start=0, end=3, label="invented"),))
    bob = judgement(of, "bob", ranking=((1,), (0,), (2,)))
    pairs = {pair.field: pair for pair in pairs_of(said_by_raters([of], [ann, bob]))}
    assert (pairs["preference"].n, pairs["preference"].agreed) == (3, pytest.approx(1 / 3))
    assert (pairs["invented"].n, pairs["invented"].agreed) == (3, pytest.approx(2 / 3))


def test_both_bad_is_no_tie_and_one_rater_alone_agrees_with_nobody() -> None:
    candidates = [candidate(number) for number in range(4)]
    said = {"ann": [0, 1, "tie", "both bad"], "bob": [0, 1, "both bad", "both bad"]}
    judgements = [judgement(of, n, preferred=v) for n in said for of, v in zip(candidates, said[n], strict=True)]
    (pair,) = pairs_of(said_by_raters(candidates, judgements))
    assert pair.agreed == 0.75
    (alone,) = fields_of(said_by_raters(candidates, judgements[:4]))
    assert (alone.units, alone.alpha, alone.reading) == (0, None, "nothing to compare")


def test_raters_who_say_one_thing_only_have_no_kappa() -> None:
    candidates = [candidate(number) for number in range(3)]
    judgements = [judgement(of, name, preferred=0) for name in ("ann", "bob") for of in candidates]
    said = said_by_raters(candidates, judgements)
    (pair,), (field,) = pairs_of(said), fields_of(said)
    assert (pair.n, pair.agreed, pair.kappa) == (3, 1.0, None)
    assert field.alpha is None


def test_the_command_prints_who_agrees_with_whom(veritune: Callable[..., Any], workspace: Workspace) -> None:
    candidates = [candidate(number) for number in range(8)]
    said = {"ann": [0, 1, 0, 1, 0, 1, 0, 1], "bob": [0, 1, 0, 1, 0, 1, 0, 0]}
    judgements = [judgement(of, n, preferred=v) for n in said for of, v in zip(candidates, said[n], strict=True)]
    judge = Rater(kind="ai", name="m")
    judgements += [Judgement(candidate_id=of.id, rater=judge, source="test", preferred=0) for of in candidates]
    with Database(workspace.database) as database:
        database.add("main", candidates, judgements)
    root = str(workspace.root)
    found = veritune("--workspace", root, "feedback", "agreement", "main", "--json")
    both, people = found["fields"]
    assert (both["field"], both["units"], both["raters"]) == ("preference", 8, 3)
    assert (people["field"], people["units"], people["raters"]) == ("preference, people alone", 8, 2)
    # What the judge says is one answer always, which is no disagreement of the two people.
    assert both["alpha"] < 0.5 < people["alpha"]
    assert found["raters"][0]["agreed"] == 0.875
    # The last pair is a tie of ann and bob.
    assert found["judges"][0]["cells"] == [[4, 0, 0], [3, 0, 0], [1, 0, 0]]
    ended = veritune("--workspace", root, "feedback", "agreement", "main")
    assert "ann (human)" in ended.out
    assert "alpha; n = what two or more raters judged, intervals resample it" in ended.out
    assert "m (ai) against people, n = 8: agreed on 50.0% (0.215 to 0.785), kappa 0.000" in ended.err
    assert ["second", "3", "0", "0"] in [line.split() for line in ended.out.splitlines()]
    with Database(workspace.database) as database:
        database.add("alone", candidates, judgements[:8])
        database.add("alike", candidates[:2], [judgement(of, n, preferred=0) for n in said for of in candidates[:2]])
    alone = veritune("--workspace", root, "feedback", "agreement", "alone")
    assert "no two raters have judged the same candidate yet" in alone.err
    assert "no variation" in veritune("--workspace", root, "feedback", "agreement", "alike").out
    missing = veritune("--workspace", root, "feedback", "agreement", "other")
    assert missing.status == 2
    assert missing.lines == ["error: collection 'other': not here; there are alike, alone, main"]
