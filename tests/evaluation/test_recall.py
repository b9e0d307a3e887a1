"""What was answered once is not asked again, whatever became of the evaluation that asked it."""

import json
import random
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from evaluation.recall import Recall
from evaluation.shared_prompts import SharedPrompts
from evaluation.suites import evaluate
from feedback.cache import FILE, Cache
from feedback.versions import DatasetVersion
from feedback.workspace import SETTINGS_FILE, Workspace
from tests.training.processes import in_process
from training.launch import train
from training.runs import Run


def quiet(line: str) -> None:
    pass


class Fake(LM):
    """Answers with the number of the request, and remembers the batches."""

    tokenizer_name = "fake"

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[Any]] = []

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        before = sum(map(len, self.asked))
        self.asked.append([request.args for request in requests])
        return [f"{request.args[0]} {before + place}" for place, request in enumerate(requests)]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self.asked.append([request.args for request in requests])
        return [(-len(request.args[1]) / 3, True) for request in requests]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        self.asked.append([request.args for request in requests])
        return [-0.1 for _ in requests]


def generation(prompt: str, **how: Any) -> Instance:
    return Instance("generate_until", {}, (prompt, {"until": ["\n"], **how}), 0)


def choices(prompt: str, *answers: str) -> list[Instance]:
    return [Instance("loglikelihood", {}, (prompt, answer), 0) for answer in answers]


@pytest.fixture
def cache(tmp_path: Path) -> Any:
    with Cache(tmp_path / "cache") as opened:
        yield opened


def recall(model: LM, cache: Cache | None, identity: str | None = "weights", size: int = 2) -> Recall:
    return Recall(model, identity, cache, size, "a task", quiet)


def test_a_second_evaluation_asks_nothing_and_says_the_same(cache: Cache) -> None:
    asked = [generation(prompt) for prompt in ("one", "three", "eleven")]
    scored = [*choices("Who?", " me", " you"), *choices("Why?", " so")]
    first, second = Fake(), Fake()
    answers = [
        (
            recall(model, cache).generate_until(asked),
            recall(model, cache).loglikelihood(scored),
            recall(model, cache).loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("all",), 0)]),
        )
        for model in (first, second)
    ]
    assert answers[0] == answers[1]
    assert len(first.asked) == 4
    assert second.asked == []


def test_who_is_asked_and_how_make_a_difference(cache: Cache) -> None:
    model = Fake()
    recall(model, cache).generate_until([generation("one")])
    for identity, request in [("other", generation("one")), ("weights", generation("one", temperature=0.5))]:
        before = len(model.asked)
        recall(model, cache, identity).generate_until([request])
        assert len(model.asked) == before + 1
    for store, identity in ((None, "weights"), (cache, None)):
        before = len(model.asked)
        recall(model, store, identity).generate_until([generation("one")])
        assert len(model.asked) == before + 1


def test_several_samples_of_one_prompt_stay_several(cache: Cache) -> None:
    model, asked = Fake(), [generation("one", do_sample=True)] * 3
    first = recall(model, cache).generate_until(asked)
    assert len(set(first)) == 3
    assert recall(model, cache).generate_until(asked) == first
    assert recall(model, cache).generate_until([*asked, asked[0]])[:3] == first


def test_answers_of_one_prompt_share_a_batch_and_the_longest_go_first(cache: Cache) -> None:
    scored = [*choices("a" * 3, "1"), *choices("a" * 9, "1", "2"), *choices("a" * 6, "1")]
    model = Fake()
    recall(model, cache).loglikelihood([scored[1], scored[0], scored[3], scored[2]])
    assert [[prompt for prompt, _ in batch] for batch in model.asked] == [["a" * 9, "a" * 9, "a" * 6], ["a" * 3]]


def test_progress_is_told_with_an_estimate(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedback.argilla.progress.SECONDS_BETWEEN_LINES", 0)
    lines: list[str] = []
    asked = [generation(prompt) for prompt in ("one", "three", "eleven")]
    Recall(Fake(), "weights", cache, 1, "a task", lines.append).generate_until(asked)
    assert re.fullmatch(r"a task: 1 of 3 \([\d,.]+ a second, \d+ s to go\)", lines[0])


@pytest.fixture
def questions(workspace: Workspace) -> None:
    rows = [{"question": f"{n} + {n}?", "answers": [str(2 * n)] if n % 3 else []} for n in range(12)]
    (workspace.root / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workspace.root / SETTINGS_FILE).write_text('[evaluation]\nquestions = ["held_out.jsonl"]\n')


@pytest.fixture
def run(workspace: Workspace, questions: None, small_dataset: DatasetVersion, tiny_model: Path) -> Run:
    keys = ["dataset=sums", f"model={tiny_model}", "max_steps=8", "learning_rate=2e-2"]
    return train(workspace, "sft", keys, quiet)


@pytest.fixture
def forwarded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every request that reaches a model from now on."""
    found: list[str] = []
    for kind in ("generate_until", "loglikelihood"):
        asked: Callable[..., Any] = getattr(SharedPrompts, kind)

        def note(self: SharedPrompts, requests: Sequence[Instance], asked: Any = asked, **how: Any) -> Any:
            found.extend(str(request.args) for request in requests)
            return asked(self, requests, **how)

        monkeypatch.setattr(SharedPrompts, kind, note)
    return found


def timeless(folder: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    when = json.loads(files["results.json"])["created_at"]
    files["results.json"] = files["results.json"].replace(when.encode(), b"")
    files["report.html"] = re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC", b"", files["report.html"])
    return files


def known(workspace: Workspace) -> int:
    path = workspace.cache / FILE
    if not path.exists():
        return 0
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def evaluated(root: Path) -> None:
    evaluate(Workspace(root), "sft-1", batch_size=2, report=quiet)


def test_killed_at_any_moment_it_repeats_nothing_and_ends_with_the_same_bytes(
    workspace: Workspace, run: Run, forwarded: list[str]
) -> None:
    rng = random.Random(time.time())
    evaluate(workspace, run.id, batch_size=2, report=quiet)
    whole, requests = timeless(workspace.reports / "eval-1"), len(forwarded)
    (workspace.reports / "eval-1").rename(workspace.root / "whole")
    assert requests == known(workspace)
    (workspace.cache / FILE).unlink()

    deaths = sorted(rng.sample(range(1, requests), 2))
    for least in deaths:
        process = in_process(evaluated, workspace.root)
        while process.is_alive() and known(workspace) < least:
            time.sleep(rng.random() / 100)
        process.kill()
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0)
    before = known(workspace)
    assert before >= deaths[-1]
    forwarded.clear()
    ended = workspace.reports / "eval-1"
    if not ended.exists():
        evaluate(workspace, run.id, batch_size=2, report=quiet)
    assert len(forwarded) == requests - before
    assert timeless(ended) == whole


def test_a_base_that_was_asked_is_not_asked_for_the_next_run(
    workspace: Workspace, run: Run, forwarded: list[str]
) -> None:
    evaluate(workspace, run.id, report=quiet)
    both = len(forwarded)
    second = train(workspace, "dpo", ["dataset=sums", f"parent={run.id}", "max_steps=2", "learning_rate=1e-2"], quiet)
    evaluate(workspace, second.id, report=quiet)
    assert 0 < len(forwarded) - both <= both / 2 + 12
    forwarded.clear()
    evaluate(workspace, second.id, against=run.id, report=quiet)
    assert forwarded == []
    evaluate(workspace, second.id, against=run.id, report=quiet, cached=False)
    assert len(forwarded) == both
