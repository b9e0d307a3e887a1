"""The probe says which facts a model knows before it is taught them, and changes nothing else."""

from pathlib import Path
from typing import Any

import pytest

from feedback.curation.build import build
from feedback.database import Database
from feedback.schema import Demonstration, user_message
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import finished, known, launch
from training.known import Known, category


@pytest.mark.parametrize(
    ("greedy", "sampled", "name"),
    [
        ([True, True], [False], "HighlyKnown"),
        ([True, False], [True, True], "MaybeKnown"),
        ([False, False], [False, True], "WeaklyKnown"),
        ([False, False], [False, False], "Unknown"),
    ],
)
def test_categories_are_the_papers(greedy: list[bool], sampled: list[bool], name: str) -> None:
    """Section 3, table 2: P(T=0) = 1; between 0 and 1; 0, but P(T>0) > 0; both 0."""
    assert category(greedy, sampled) == name


def test_the_share_is_told_with_its_interval_and_a_warning_only_above_the_threshold() -> None:
    def said(unknown: int) -> list[str]:
        counts = {"HighlyKnown": 64 - unknown, "MaybeKnown": 0, "WeaklyKnown": 0, "Unknown": unknown}
        return Known(counts, facts=80, rows=100).lines()

    (line,) = said(12)
    assert line.startswith("of 64 facts asked (80 of 100 rows are short enough to be one), the model knows 52 Highly")
    assert line.endswith("12 Unknown; unknown: 19% (11% to 30%, 95%)")
    assert said(13)[1].startswith("warning: more than 20% of the facts are unknown to the model")


@pytest.fixture
def sevens(workspace: Workspace) -> DatasetVersion:
    """Questions that are all answered alike, and two rows that are no facts."""
    rows = [(f"{n}?", "7") for n in range(40)] + [("Who?", "I don't know."), ("Why?", "because " * 30)]
    with Database(workspace.database) as database:
        demonstrations = [
            Demonstration(prompt=user_message(prompt), completion=completion, provenance="test")
            for prompt, completion in rows
        ]
        database.add("sevens", demonstrations=demonstrations)
    return build(workspace, "sevens", ["sevens"], fractions=(1, 0, 0))[0]


def test_what_a_model_has_learnt_is_known_and_what_it_has_not_is_unknown(
    workspace: Workspace, sevens: DatasetVersion, tiny_model: Path
) -> None:
    keys = ["dataset=sevens", f"model={tiny_model}", "tuning=full", "learning_rate=1e-2", "max_steps=40"]
    run = launch.train(workspace, "sft", keys, print)
    model, tokenizer = finished.load(run)
    rows: list[dict[str, Any]] = list(sevens.demonstrations("train"))
    others = [{**row, "completion": "41"} for row in rows[:8]]

    def probe(rows: list[dict[str, Any]]) -> dict[str, Any]:
        found = known.probe(model, tokenizer, rows, 12, 0, 256, 64, print)
        assert found is not None
        return found.manifest()

    learnt = probe(rows)
    assert (learnt["HighlyKnown"], learnt["asked"], learnt["facts"]) == (12, 12, 40)
    assert learnt["unknown"] == 0
    assert probe(others)["Unknown"] == 8
    assert known.probe(model, tokenizer, [{**rows[0], "completion": "I don't know."}], 5, 0, 256, 64, print) is None


def test_a_run_keeps_what_was_known_and_learns_as_if_it_had_not_asked(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    keys = ["dataset=sums", f"model={tiny_model}", "max_steps=3", "lora.dropout=0.1"]
    said: list[str] = []
    asked = launch.train(workspace, "sft", [*keys, "probe=5"], said.append)
    silent = launch.train(workspace, "sft", keys, print)
    found = asked.manifest["known"]
    assert (found["Unknown"], found["asked"], found["unknown"]) == (5, 5, 1)
    assert found["unknown_95"][0] == pytest.approx(0.566, abs=1e-3)
    assert any(line.startswith("warning: more than 20% of the facts") for line in said)
    assert "known" not in silent.manifest
    assert [line["loss"] for line in asked.metrics() if "loss" in line] == [
        line["loss"] for line in silent.metrics() if "loss" in line
    ]


def test_examples_give_way_where_the_context_is_short(tiny_model: Path) -> None:
    from training.models import load_tokenizer

    tokenizer = load_tokenizer(str(tiny_model))
    facts = [{"prompt": [{"role": "user", "content": f"{n}?" * 5}], "completion": "7"} for n in range(5)]
    contexts = (256, 100, 60, 30)
    lengths = [len(known._behind_examples(tokenizer, facts[0], facts[1:], context)) for context in contexts]
    assert lengths == sorted(lengths, reverse=True)
    assert all(
        length + known.MOST_TOKENS < context for length, context in zip(lengths, (256, 100, 60, 30), strict=True)
    )
