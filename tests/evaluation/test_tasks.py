"""Tasks by name: equal to what lm-eval gives, on local data, with mistakes named before anything is asked."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.harness import Side, load_task, run_task
from evaluation.task_sources import SHARED_DATA, SUITES, TaskSource, named_source
from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import SETTINGS_FILE, Workspace


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> Side:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(shared_data / "models" / "stories260k")
    return Side(
        "stories",
        # Both ways to batch the same requests agree in all digits only where rounding has none to spoil.
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval(),
        AutoTokenizer.from_pretrained(folder),
        nullcontext,
    )


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Side:
    """A model whose context is shorter than many a prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()
    return Side("tiny", model, AutoTokenizer.from_pretrained(tiny_model), nullcontext)


@pytest.fixture
def data(shared_data: Path) -> dict[str, str]:
    return {
        "truthfulqa": str(shared_data / "truthfulqa" / "TruthfulQA.csv"),
        "halueval": str(shared_data / "halueval" / "qa_pairs.jsonl"),
        "nq_open": str(shared_data / "nq-open" / "dev.jsonl"),
        "gsm8k": str(shared_data / "gsm8k"),
    }


@pytest.mark.parametrize("name", ["truthfulqa_mc1", "truthfulqa_mc2", "nq_open", "gsm8k"])
@pytest.mark.parametrize("which", ["stories", "tiny"])
def test_figures_equal_what_lm_eval_itself_gives(
    request: pytest.FixtureRequest, which: str, data: dict[str, str], tmp_path: Path, name: str
) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    side: Side = request.getfixturevalue(which)
    task, limit = named_source(name, data, tmp_path, tmp_path), 3 if name == "gsm8k" else 8
    ours = run_task(side, task, limit, batch_size=4)
    config = task.config
    if which == "tiny" and task.generated:
        # As the harness does: lm-eval asks for room that so short a context doesn't have.
        config = {**config, "generation_kwargs": {**config["generation_kwargs"], "max_gen_toks": 64}}
    theirs = lm_eval.simple_evaluate(
        model=HFLM(pretrained=side.model, tokenizer=side.tokenizer, batch_size=4, truncation=True),
        tasks=[config],
        task_manager=TaskManager(include_defaults=False),
        limit=limit,
        bootstrap_iters=0,
    )["results"][name]
    assert len(ours) == limit
    figures = {key: value for key, value in theirs.items() if isinstance(value, float) and "stderr" not in key}
    assert figures
    for key, value in figures.items():
        metric = key if len(task.filters) > 1 else key.split(",")[0]
        assert sum(answer.metrics[metric] for answer in ours) / limit == pytest.approx(value, abs=1e-9), key


def test_answers_to_nq_open_are_graded_too(stories: Side, data: dict[str, str], tmp_path: Path) -> None:
    task = named_source("nq_open", data, tmp_path, tmp_path)
    assert list(task.metrics)[:3] == ["accuracy", "hallucination_rate", "abstention_rate"]
    (answer,) = run_task(stories, task, 1, batch_size=1)
    assert set(answer.metrics) == set(task.metrics)
    assert answer.confidence is not None
    assert 0 <= answer.confidence <= 1


def test_halueval_asks_after_both_answers_and_compares_them(
    stories: Side, data: dict[str, str], tmp_path: Path
) -> None:
    recognised = run_task(stories, named_source("halueval_recognition", data, tmp_path, tmp_path), 4, batch_size=4)
    assert [answer.doc["hallucinated"] for answer in recognised] == [False, True, False, True]
    assert recognised[0].prompt.endswith("Yes or No:")
    preferred = run_task(stories, named_source("halueval_preference", data, tmp_path, tmp_path), 2, batch_size=4)
    for answer in preferred:
        assert answer.text.strip() in (answer.doc["right_answer"], answer.doc["hallucinated_answer"])


def test_truthfulqas_right_choice_stands_first(data: dict[str, str], tmp_path: Path) -> None:
    task = named_source("truthfulqa_mc2", data, tmp_path, tmp_path)
    assert task.data == tmp_path / "truthfulqa.jsonl"
    rows = [json.loads(line) for line in task.data.read_text().splitlines()]
    assert len(rows) == 491
    for row in rows:
        for targets in (row["mc1_targets"], row["mc2_targets"]):
            assert targets["labels"] == sorted(targets["labels"], reverse=True)
            assert len(targets["labels"]) == len(targets["choices"])
        assert sum(row["mc1_targets"]["labels"]) == 1 <= sum(row["mc2_targets"]["labels"])


def test_every_task_of_a_suite_is_there_and_says_its_version() -> None:
    for name in SUITES["full"]:
        task = TaskSource(name, name)
        assert task.config["task"] == name
        assert float(task.version) > 0
        assert task.metrics
    assert set(SHARED_DATA) <= set(SUITES["full"])
    assert TaskSource("hellaswag", "hellaswag").metrics == {"acc": True, "acc_norm": True}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("no_such_task", {}, "neither in evaluation/tasks nor a task of lm-eval"),
        ("gsm8k", {"gsm8k": "absent"}, r"evaluation\.data\.gsm8k: .* does not exist"),
        ("gsm8k", {"gsm8k": "one.jsonl"}, r"needs a folder, with train\.jsonl"),
        ("nq_open", {"nq_open": "broken.jsonl"}, "can't be read as its data"),
        ("truthfulqa_mc1", {"truthfulqa": "wrong.csv"}, "has no column Best Answer"),
        ("nq_open", {}, r"is not to be had from the hub .* under \[evaluation\.data\]: nq_open = FILE"),
    ],
)
def test_what_is_not_to_be_had_is_one_line(name: str, data: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"question": "?", "answer": "#### 1"}\n')
    (tmp_path / "broken.jsonl").write_text("{nothing\n")
    (tmp_path / "wrong.csv").write_text("Question\n?\n")
    with pytest.raises(UserError, match=message):
        load_task(named_source(name, data, tmp_path, tmp_path))


def test_a_suite_asks_its_tasks_beside_the_workspaces_own(
    workspace: Workspace,
    small_dataset: DatasetVersion,
    tiny_model: Path,
    data: dict[str, str],
    veritune: Callable[..., Any],
) -> None:
    root = ("--workspace", str(workspace.root))
    lines = [f'{name} = "{path}"' for name, path in data.items()]
    (workspace.root / SETTINGS_FILE).write_text("[evaluation.data]\n" + "\n".join(lines) + "\n")
    trained = veritune(
        *root, "train", "sft", "dataset=sums", f"model={tiny_model}", "max_steps=2", "learning_rate=2e-2"
    )
    assert trained.status == 0
    results = veritune(*root, "eval", "sft-1", "--suite", "truthful", "--limit", "2", "--json")
    assert isinstance(results, dict), results.err
    assert list(results["tasks"]) == ["preferences", *SUITES["truthful"]]
    assert {task["n"] for task in results["tasks"].values()} == {2}
    assert results["suite"] == "truthful"
    ended = veritune(*root, "eval", "sft-1", "--suite", "none")
    assert ended.status == 2
    assert "there is quick, truthful, full" in ended.err
