"""Exact and near duplicates: what is planted is found, what only looks alike stays, and crowds cost no more."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from feedback.curation import duplicates
from feedback.curation.rows import Rows
from feedback.schema import Demonstration, PreferencePair, user_message

WORDS = [a + b + c for a in "bdfgkl" for b in ("ano", "eri", "usi") for c in ("ta", "mo", "", "rel")]


def pair(prompt: str, chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair(
        prompt=user_message(prompt), chosen=chosen, rejected=rejected, probability=1.0, judgements=("j",)
    )


def rows_of(folder: Path, records: list[PreferencePair] | list[Demonstration]) -> Rows:
    rows = Rows(folder / "rows.sqlite", (0.8, 0.1, 0.1))
    for record in records:
        rows.add(record)
    rows.sort()
    return rows


def near(rows: Rows, folder: Path, threshold: float = 0.8, kind: str = "pairs") -> set[int]:
    before = {row.number for row in rows.standing(kind)}
    assert sum(duplicates.drop_near(rows, kind, threshold, folder / "signatures")) == len(before)
    return before - {row.number for row in rows.standing(kind)}


def text(rng: random.Random, length: int) -> list[str]:
    return [rng.choice(WORDS) + str(rng.randrange(100)) for _ in range(length)]


def test_a_row_with_other_spacing_and_case_is_an_exact_duplicate(tmp_path: Path) -> None:
    rows = rows_of(
        tmp_path, [pair("Why?", "So  it is.", "No."), pair("why?", "so it IS.", " No.\n"), pair("Why", "So", "")]
    )
    duplicates.drop_exact(rows, "pairs")
    assert rows.dropped() == {("exact duplicate", "pairs"): 1}
    # The first in the order of text stays.
    assert [row.turns for row in rows.standing("pairs")] == [("Why",), ("Why?",)]


def test_opposite_choices_are_no_duplicates(tmp_path: Path) -> None:
    rng = random.Random(0)
    prompt, a, b = (" ".join(text(rng, 30)) for _ in range(3))
    rows = rows_of(tmp_path, [pair(prompt, a, b), pair(prompt, b, a)])
    duplicates.drop_exact(rows, "pairs")
    assert near(rows, tmp_path) == set()


def test_every_planted_near_duplicate_is_found_and_nothing_else_goes(tmp_path: Path) -> None:
    rng = random.Random(1)
    originals = [[text(rng, rng.randint(20, 60)) for _ in range(3)] for _ in range(400)]
    records = [pair(*(" ".join(part) for part in parts)) for parts in originals]
    for parts in originals[:150]:
        # A word in the middle takes three shingles with it, one at the end takes one.
        changed = [[*parts[0][:-1], "else"], [*parts[1][:9], "other", *parts[1][10:]], parts[2]]
        if min(map(len, parts)) >= 30:
            records.append(pair(*(" ".join(part) for part in changed)))
    planted = len(records) - 400
    assert planted > 50
    # Alike in two parts of three: prompt and one answer the same, the other answer new.
    records += [pair(" ".join(p), " ".join(c), " ".join(text(rng, 40))) for p, c, _ in originals[200:300]]
    rng.shuffle(records)
    rows = rows_of(tmp_path, records)
    assert len(near(rows, tmp_path)) == planted
    reasons = [row["because"] for row in rows.all_set_aside()]
    assert all(reason.startswith(("0.8", "0.9")) for reason in reasons)


def test_what_is_dropped_is_what_comparing_all_with_all_drops(tmp_path: Path) -> None:
    rng = random.Random(2)
    base = [text(rng, 24) for _ in range(3)]
    records = []
    for _ in range(120):
        # From unchanged to much changed: similarities on both sides of the threshold.
        share = rng.choice((0.0, 0.02, 0.05, 0.3))
        parts = [[rng.choice(WORDS) if rng.random() < share else word for word in part] for part in base]
        records.append(pair(*(" ".join(part) for part in parts)))
    rows = rows_of(tmp_path, records)
    shingles = {row.number: duplicates._shingles(row) for row in rows.standing("pairs")}
    kept: list[int] = []
    for number in sorted(shingles):
        if all(duplicates._similarity(shingles[other], shingles[number]) < 0.7 for other in kept):
            kept.append(number)
    assert 1 < len(kept) < 120
    assert near(rows, tmp_path, threshold=0.7) == set(shingles) - set(kept)


def test_a_long_prompt_that_all_share_makes_no_duplicates(tmp_path: Path) -> None:
    rng = random.Random(3)
    system = " ".join(text(rng, 300))
    records = [pair(f"{system} {' '.join(text(rng, 8))}", *(" ".join(text(rng, 20)) for _ in "ab")) for _ in range(300)]
    records.append(pair(records[0].prompt[0].content + " indeed", records[0].chosen, records[0].rejected))
    assert len(near(rows_of(tmp_path, records), tmp_path)) == 1


def test_short_answers_are_told_apart_by_every_sign(tmp_path: Path) -> None:
    records = [pair(f"{a} {sign} {b}?", str(a), "0") for a in range(5) for b in range(5) for sign in "+-"]
    assert near(rows_of(tmp_path, records), tmp_path) == set()


def test_demonstrations_are_compared_too(tmp_path: Path) -> None:
    rng = random.Random(4)
    prompt, answer = text(rng, 30), text(rng, 50)
    records = [
        Demonstration(prompt=user_message(" ".join(prompt)), completion=" ".join(words), provenance="test")
        for words in (answer, [*answer, "yes"], text(rng, 50))
    ]
    assert len(near(rows_of(tmp_path, records), tmp_path, kind="demonstrations")) == 1


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_miss_next_to_nothing_at_the_threshold(threshold: float) -> None:
    bands, width = duplicates.bands_of(threshold)
    assert bands * width <= duplicates.PERMUTATIONS
    assert (1 - threshold**width) ** bands <= duplicates.MISSED


def test_signatures_estimate_the_similarity_of_sets(tmp_path: Path) -> None:
    from datasketch import MinHash

    rng = random.Random(5)
    sketch = MinHash(num_perm=duplicates.PERMUTATIONS, seed=duplicates.SEED, hashfunc=int)
    errors = []
    for changed in range(0, 60, 2):
        words = text(rng, 60)
        other = [*text(rng, changed), *words[changed:]]
        one, two = (
            next(rows_of_one(tmp_path / f"{changed}-{i}", " ".join(w)).standing("demonstrations"))
            for i, w in enumerate((words, other))
        )
        a, b = (np.frombuffer(duplicates._signature(sketch, row), np.uint32) for row in (one, two))
        (left, *_), (right, *_) = duplicates._shingles(one), duplicates._shingles(two)
        union = len(left | right) + 1
        errors.append((a == b).mean() - (len(left & right) + 1) / union)
    # The standard error of each is at most 0.044.
    assert abs(float(np.mean(errors))) < 0.03
    assert max(map(abs, errors)) < 0.18


def rows_of_one(folder: Path, prompt: str) -> Rows:
    folder.mkdir()
    return rows_of(folder, [Demonstration(prompt=user_message(prompt), completion="yes", provenance="test")])


def test_real_pairs_that_differ_in_a_word_or_a_stop_are_found(tmp_path: Path, shared_data: Path) -> None:
    lines = [json.loads(line) for line in (shared_data / "llmbar" / "pairs.jsonl").read_text().splitlines()]
    records = [
        pair(line["input"], line[f"output_{line['label']}"], line[f"output_{3 - line['label']}"])
        for line in lines
        if line["output_1"] != line["output_2"]
    ]
    rows = rows_of(tmp_path, records)
    duplicates.drop_exact(rows, "pairs")
    # One pair of LLMBar's tasks differs in its instruction alone; three came twice.
    assert rows.dropped() == {("exact duplicate", "pairs"): 3}
    assert len(near(rows, tmp_path)) == 1
