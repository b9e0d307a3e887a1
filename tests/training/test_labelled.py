"""Labelled texts: files of several shapes, all their mistakes at once, and a split by what is asked."""

import json
from pathlib import Path

import pytest

from feedback.errors import UserError
from feedback.schema import user_message
from feedback.versions import DatasetVersion
from training.labelled import Example, examples_of, is_file, labels_of, read


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_and_grounded_answers_are_read(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"question": f"q{n}?", "answer": "a", "context": "It is a." if n % 2 else None, "label": n % 2}
        for n in range(40)
    ]
    rows += [{"text": f"t{n}", "label": True} for n in range(3)]
    data = read(write(tmp_path / "labels.jsonl", rows), {})
    assert data.labels == labels_of(data) == ("0", "1", "True")
    assert data.examples[0] == Example(user_message("q0?"), "a", "0")
    assert data.examples[1] == Example(user_message("It is a.\n\nq1?"), "a", "1")
    assert data.examples[40] == Example((), "t0", "True")
    assert data.id == str(tmp_path / "labels.jsonl")
    splits = {split: examples_of(data, split) for split in ("train", "validation", "test")}
    assert sorted(map(repr, data.examples)) == sorted(repr(e) for rows in splits.values() for e in rows)


def test_answers_to_one_question_share_a_split(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"question": f"q{n // 4}?", "answer": str(n), "label": "ab"[n % 2]} for n in range(80)
    ]
    data = read(write(tmp_path / "labels.jsonl", rows), {})
    of_question: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        for example in examples_of(data, split):
            of_question.setdefault(example.prompt[0].content, set()).add(split)
    assert {len(splits) for splits in of_question.values()} == {1}


def test_a_csv_file_with_its_own_names(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("query,reply,bad\n" + "".join(f"q{n}?,yes,{'no' if n % 3 else 'yes'}\n" for n in range(30)))
    data = read(path, {"question": "query", "answer": "reply", "label": "bad"})
    assert data.labels == ("no", "yes")
    assert data.examples[1] == Example(user_message("q1?"), "yes", "no")


def test_all_mistakes_of_a_file_are_named_with_their_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "labels.jsonl",
        [
            {"text": "fine", "label": "a"},
            {"text": "no label"},
            {"question": "q?", "label": "a"},
            {"text": 3, "label": "a"},
            {"question": "q?", "answer": "a", "context": ["c"], "label": "b"},
            {"text": "half", "label": 0.5},
        ],
    )
    path.write_text(path.read_text() + "{no json\n")
    with pytest.raises(UserError) as caught:
        read(path, {"label": "label"})
    said = [line.removeprefix(f"{path}, ") for line in caught.value.lines]
    assert said[:5] == [
        "line 2: label: missing; must be a word or a whole number",
        "line 3: answer: missing; must be text (or one text in text)",
        "line 4: text: 3; must be text",
        "line 5: context: ['c']; must be text",
        "line 6: label: 0.5; must be a word or a whole number",
    ]
    assert said[5].startswith("line 7: ")
    assert len(said) == 6


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.jsonl", [{"text": "t"}] * 30)
    with pytest.raises(UserError) as caught:
        read(path, {})
    assert len(caught.value.lines) == 21
    assert caught.value.lines[-1] == f"{path}: and 10 more such rows"


def test_one_label_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.jsonl", [{"text": f"t{n}", "label": "a"} for n in range(5)])
    with pytest.raises(UserError, match="all 5 rows have the label 'a'; a classifier tells at least two labels apart"):
        read(path, {})
    path = write(tmp_path / "labels.jsonl", [{"text": f"t{n}", "label": "a"} for n in range(40)])
    data = write(tmp_path / "empty.jsonl", [])
    with pytest.raises(UserError, match="no rows; a classifier tells at least two labels apart"):
        read(data, {})


def test_a_pairs_answers_are_chosen_or_rejected(small_dataset: DatasetVersion) -> None:
    pairs = list(small_dataset.pairs("train"))
    examples = examples_of(small_dataset, "train")
    assert labels_of(small_dataset) == ("rejected", "chosen")
    assert Example(user_message(pairs[0]["prompt"][0]["content"]), pairs[0]["chosen"], "chosen") in examples
    assert Example(user_message(pairs[0]["prompt"][0]["content"]), pairs[0]["rejected"], "rejected") in examples
    assert len(examples) == 2 * len(pairs)


def test_a_dataset_is_told_from_a_file_by_its_suffix() -> None:
    assert is_file("labels.jsonl")
    assert is_file("data/labels.csv.gz")
    assert not is_file("lessons@v1.2")
    assert not is_file("lessons")
