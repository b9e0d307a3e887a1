"""`judge --evaluate`: figures that are known beforehand come out, to the digit."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from feedback.constitution.comparison import Judging
from feedback.constitution.gold import Evaluation, evaluate, read_gold, share
from feedback.constitution.judge import Choosing
from feedback.constitution.principles import SHIPPED, load
from feedback.errors import UserError
from tests.feedback.constitution.faulty import serving
from tests.feedback.constitution.judges import React, endpoint, planted, voting


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def llmbar(path: Path, *pairs: tuple[float, float, int], subset: str = "s") -> str:
    """Pairs of worths, and which people prefer; a worth's answer is the longer the more digits it has."""
    rows = [
        {"input": f"q{i}", "output_1": f"worth {a}", "output_2": f"worth {b}", "label": label, "subset": subset}
        for i, (a, b, label) in enumerate(pairs)
    ]
    return f"llmbar:{write(path, rows)}"


def measured(react: React, gold: str, folder: Path, limit: int | None = None) -> Evaluation:
    with serving(react) as server:
        model = endpoint(server, folder)
        choosing = Choosing(principle="helpful")
        return evaluate(model, load(SHIPPED), read_gold(gold).sample(limit), choosing, Judging(), lambda line: None)


def test_counts_right_answers_of_both_orders_and_of_each(tmp_path: Path) -> None:
    # A bias of 1 towards (A): alone it decides pairs less than 1 apart; the mean of both orders is never misled by it.
    gold = llmbar(
        tmp_path / "gold.jsonl",
        (3, 1, 1),  # right, in each order
        (1, 3, 2),  # right, in each order
        (1.25, 1, 1),  # right; alone as given, wrong when swapped
        (1, 1.25, 2),  # right; alone wrong as given, right when swapped
        (1, 1.5, 2),  # the same
        (5, 1, 2),  # wrong, in each order
    )
    (whole, subset) = measured(planted(bias=1.0), gold, tmp_path).qualities
    assert (whole.slice, subset.slice) == ("all", "s")
    assert whole.accuracy == share(5, 6)
    assert whole.as_given == share(3, 6)
    assert whole.swapped == share(4, 6)
    assert whole.flips == share(3, 6)
    # "worth 1.25" is longer than "worth 1", and preferred, as is 1.5; the rest are equally long.
    assert whole.longer == share(3, 3)
    assert (whole.ties, whole.unanswered) == (0, 0)


def test_an_undecided_judge_is_not_right(tmp_path: Path) -> None:
    gold = llmbar(tmp_path / "gold.jsonl", (3, 1, 1), (1, 3, 2))
    (whole, _) = measured(voting("A"), gold, tmp_path).qualities
    assert whole.accuracy == share(0, 2)
    assert (whole.ties, whole.flips) == (2, share(2, 2))
    assert (whole.as_given, whole.swapped) == (share(1, 2), share(1, 2))


def test_pairs_without_an_answer_are_counted_apart(tmp_path: Path) -> None:
    gold = llmbar(tmp_path / "gold.jsonl", (3, 1, 1), (1, 30, 2))
    (whole, _) = measured(voting("Who knows."), gold, tmp_path).qualities
    assert (whole.accuracy, whole.flips, whole.unanswered) == (None, None, 2)
    assert whole.longer == share(1, 1)


def test_people_decide_by_majority(tmp_path: Path) -> None:
    said = [(1, 1, 2), (2, 2, 2), (0, 0, 1), (0, 1, 2)]
    rows = [
        {"instruction": f"q{i}", "response1": "worth 3", "response2": "worth 1"}
        | {f"annotator{n}": vote for n, vote in enumerate(votes, 1)}
        for i, votes in enumerate(said)
    ]
    found = measured(planted(), f"pandalm:{write(tmp_path / 'gold.jsonl', rows)}", tmp_path)
    assert (found.ties, found.conflicts) == (1, 1)
    assert found.qualities[0].accuracy == share(1, 2)


def test_bad_rows_are_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    llmbar(path, (3, 1, 1))
    path.write_text(path.read_text() + '{"input": "q"}\nnonsense\n')
    gold = read_gold(f"llmbar:{path}")
    assert (len(gold.pairs), gold.refused) == (1, 2)
    assert gold.reasons[0] == "line 2: output_1 is missing"
    assert gold.reasons[1].startswith("line 3: not JSON")


def test_a_sample_is_the_same_each_time(tmp_path: Path) -> None:
    gold = read_gold(llmbar(tmp_path / "gold.jsonl", *((i, 0, 1) for i in range(50))))
    sample = gold.sample(10)
    assert sample.pairs == gold.sample(10).pairs
    assert len(sample.pairs) == 10
    assert sample.pairs != gold.pairs[:10]


@pytest.mark.parametrize("source", ["pairs.jsonl", "nothing:pairs.jsonl", "llmbar:"])
def test_a_source_without_its_format_is_said(source: str) -> None:
    with pytest.raises(UserError, match="write FORMAT:FILE"):
        read_gold(source)


def test_a_file_without_pairs_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "gold.jsonl", [{"prompt": "q", "completion": "a"}])
    with pytest.raises(UserError, match=r"no judged pair of answers in it \(line 1: not a judged pair"):
        read_gold(f"trl:{path}")


def test_a_principle_that_does_not_apply_is_said(tmp_path: Path) -> None:
    gold = read_gold(llmbar(tmp_path / "gold.jsonl", (3, 1, 1)))
    with (
        serving(planted()) as server,
        pytest.raises(UserError, match="--principle grounded: it does not apply to 1 of 1"),
    ):
        evaluate(endpoint(server, tmp_path), load(SHIPPED), gold, Choosing("grounded"), Judging(), lambda line: None)


def test_reads_the_real_gold(shared_data: Path) -> None:
    bar = read_gold(f"llmbar:{shared_data / 'llmbar' / 'pairs.jsonl'}")
    # One of the 524 compares an answer with itself.
    assert (len(bar.pairs), bar.refused) == (523, 1)
    panda = read_gold(f"pandalm:{shared_data / 'pandalm' / 'human_pairs.jsonl'}")
    assert Counter(label for _, label in panda.pairs) == {0: 256, 1: 331, "tie": 66}
