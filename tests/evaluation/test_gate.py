"""A regression fails a build: conditions on differences, and the command's exit status."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation.gate import failures, parse_conditions, require_metrics
from evaluation.statistics import Comparison, compare
from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import SETTINGS_FILE, Workspace


def comparison(task: str, metric: str, difference: float) -> Comparison:
    made = compare(task, metric, [0.5] * 4, [0.5 + difference + d for d in (-0.01, 0.01, -0.02, 0.02)], range(4), True)
    assert made is not None
    return made


COMPARISONS = [comparison("people", "score@0.75", -0.2), comparison("towns", "score@0.75", 0.1)]


@pytest.mark.parametrize(
    ("condition", "tasks"),
    [
        ("score@0.75<0", ["people"]),
        ("score@0.75 < -0.3", []),
        ("score@0.75<=1", ["people", "towns"]),
        ("towns:score@0.75<0", []),
        ("towns:score@0.75>.05", ["towns"]),
    ],
)
def test_a_condition_holds_of_differences(condition: str, tasks: list[str]) -> None:
    lines = failures(parse_conditions([condition]), COMPARISONS)
    assert [line.split(" holds: ")[1].split(":")[0] for line in lines] == tasks
    assert all("95%" in line and "n = 4" in line for line in lines)


def test_conditions_that_are_none_are_named_together() -> None:
    with pytest.raises(UserError) as caught:
        parse_conditions(["score", "a<b", "x<1", "< 2"])
    assert [line.split(":")[0] for line in caught.value.lines] == [
        "--fail-if 'score'",
        "--fail-if 'a<b'",
        "--fail-if '< 2'",
    ]


def test_a_metric_that_is_not_measured_is_a_mistake_before_anything_is_asked() -> None:
    conditions = parse_conditions(["score@0.75<0", "people:acc<0", "bleu<0"])
    metrics = {"people": ["score@0.75"], "preferences": ["acc"]}
    with pytest.raises(UserError) as caught:
        require_metrics(conditions, metrics)
    assert len(caught.value.lines) == 2
    assert "there are people:score@0.75, preferences:acc" in caught.value.lines[0]


def test_the_command_exits_with_3_where_a_condition_holds(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, veritune: Callable[..., Any]
) -> None:
    (workspace.root / "held_out.jsonl").write_text(json.dumps({"question": "1 + 1?", "answers": ["2"]}) + "\n")
    (workspace.root / SETTINGS_FILE).write_text('[evaluation]\nquestions = ["held_out.jsonl"]\n')
    root = ("--workspace", str(workspace.root))
    veritune(*root, "train", "sft", "dataset=sums", f"model={tiny_model}", "max_steps=2", "learning_rate=2e-2")
    ended = veritune(*root, "eval", "sft-1", "--fail-if", "accuracy>=0", "--fail-if", "preferences:acc>2")
    assert ended.status == 3
    assert [line for line in ended.lines if "--fail-if" in line] == [
        "--fail-if 'accuracy>=0' holds: held_out: accuracy +0.0000 (n = 1)"
    ]
    assert veritune(*root, "eval", "sft-1", "--fail-if", "accuracy>2").status == 0
    ended = veritune(*root, "eval", "sft-1", "--fail-if", "bleu<0")
    assert ended.status == 2
    assert "not measured here" in ended.err
