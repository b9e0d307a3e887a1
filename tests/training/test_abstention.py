"""Declining to answer is told from answering, in many wordings and on real answers."""

import csv
import json
from pathlib import Path

from training.abstention import abstains

WORDINGS = [json.loads(line) for line in (Path(__file__).parent / "abstentions.jsonl").read_text().splitlines()]


def test_the_list_is_long_and_has_enough_of_both() -> None:
    declining = sum(wording["abstains"] for wording in WORDINGS)
    assert len({wording["text"] for wording in WORDINGS}) == len(WORDINGS) >= 300
    assert min(declining, len(WORDINGS) - declining) > 150


def test_at_least_98_in_100_wordings_are_recognised() -> None:
    wrong = [wording["text"] for wording in WORDINGS if abstains(wording["text"]) is not wording["abstains"]]
    assert len(wrong) <= 0.02 * len(WORDINGS), wrong


def test_silence_is_no_abstention() -> None:
    assert not abstains("")
    assert not abstains(" \n")


def test_real_answers_that_decline_are_found_and_real_answers_that_do_not_are_left(shared_data: Path) -> None:
    with (shared_data / "truthfulqa" / "TruthfulQA.csv").open(encoding="utf-8", newline="") as file:
        best = [row["Best Answer"] for row in csv.DictReader(file)]
    declined = [answer for answer in best if abstains(answer)]
    assert declined.count("I have no comment") == best.count("I have no comment") > 30
    # Two of the others say of something that it is unknown, which is so.
    assert len(set(declined)) <= 3, set(declined)
    with (shared_data / "halueval" / "qa_pairs.jsonl").open(encoding="utf-8") as file:
        right = [json.loads(line)["right_answer"] for line in file]
    assert len(right) > 600
    assert [answer for answer in right if abstains(answer)] == []
