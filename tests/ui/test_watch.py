"""`watch`: a batch of new labels is trained and evaluated once, whatever happens to the watcher."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feedback import versions
from feedback.database import Database
from feedback.errors import UserError
from feedback.schema import Candidate, Judgement, Rater, Response, user_message
from feedback.workspace import Workspace
from training import runs
from ui.watch import Watch

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from feedback.workspace import Workspace
from ui.watch import Watch
Watch(Workspace(Path(sys.argv[1])), "sums", 20, "dpo", sys.argv[2:], print).step()
"""


def label(workspace: Workspace, numbers: range, preferred: int = 1) -> None:
    """A person's judgements on pairs of made-up sums."""
    ann, candidates = Rater(kind="human", name="ann"), []
    for number in numbers:
        responses = (Response(text=str(number + 8)), Response(text=str(number + 7)))
        candidates.append(Candidate(prompt=user_message(f"{number} + 7?"), responses=responses))
    judgements = [Judgement(candidate_id=c.id, rater=ann, source="argilla", preferred=preferred) for c in candidates]
    with Database(workspace.database) as database:
        database.add("sums", candidates, judgements)


def watching(workspace: Workspace, model: Path, *overrides: str, said: list[str] | None = None) -> Watch:
    report = said.append if said is not None else print
    return Watch(workspace, "sums", 20, "dpo", [f"model={model}", "max_steps=2", *overrides], report)


def test_every_so_many_labels_become_a_version_a_run_and_a_report(
    workspace: Workspace, tiny_model: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    # One that can't be trained is told, and the next one is tried.
    watch = watching(workspace, tmp_path / "no-model", said=said)
    label(workspace, range(19))
    assert (watch.waiting(), watch.step()) == (19, None)
    label(workspace, range(19, 60))
    first = watch.step()
    assert first is not None
    assert (first.version, first.labels, first.report) == ("sums@v1", 60, None)
    assert first.error is not None
    assert "no-model" in first.error
    assert any("60 new labels: sums@v1" in line for line in said)
    assert (watch.waiting(), watch.step()) == (0, None)
    label(workspace, range(10), preferred=0)
    assert (watch.waiting(), watch.step()) == (10, None)
    label(workspace, range(60, 75))
    second = watching(workspace, tiny_model).step()
    assert second is not None
    assert (second.version, second.labels, second.report, second.error) == ("sums@v2", 25, "eval-1", None)
    assert runs.find(workspace, second.run or "").state == "finished"
    assert watching(workspace, tiny_model).step() is None


def test_a_watch_killed_in_training_goes_on_and_does_nothing_twice(workspace: Workspace, tiny_model: Path) -> None:
    label(workspace, range(60))
    overrides = [f"model={tiny_model}", "max_steps=40", "checkpoint_every=2"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(workspace.root), *overrides], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not any(run.checkpoints() for run in runs.list_runs(workspace)):
        assert process.poll() is None, "the watch ended before a checkpoint was there"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    batch = Watch(workspace, "sums", 20, "dpo", overrides, print).step()
    assert batch is not None
    assert (batch.version, batch.run, batch.report, batch.error) == ("sums@v1", "dpo-1", "eval-1", None)
    assert [run.id for run in runs.list_runs(workspace)] == ["dpo-1"]
    assert runs.find(workspace, "dpo-1").status()["step"] == 40
    assert len(list(versions.all_versions(workspace))) == 1
    assert Watch(workspace, "sums", 20, "dpo", overrides, print).step() is None


def test_mistakes_are_told_before_the_waiting(workspace: Workspace, tiny_model: Path) -> None:
    for recipe, overrides, message in (
        ("dop", [], "dop"),
        ("dpo", ["bata=1"], "bata"),
        ("dpo", ["dataset=sums"], "dataset=sums: leave it out"),
    ):
        with pytest.raises(UserError, match=message):
            Watch(workspace, "sums", 20, recipe, overrides, print)
    watch = watching(workspace, tiny_model)
    with (
        watch.alone(),
        pytest.raises(UserError, match="another veritune watch"),
        watching(workspace, tiny_model).alone(),
    ):
        pass
