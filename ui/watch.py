"""`watch`: when enough new labels are there, a dataset version, a run and a report come of them, unattended.

A batch is known by what it left behind (its version, the run that was started with its command, that run's report),
so that a watch that was killed goes on where it stood and does nothing twice.
"""

import fcntl
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from feedback.curation.build import build
from feedback.database import Database
from feedback.errors import UserError
from feedback.files import write_atomic
from feedback.schema import Record
from feedback.versions import NAME
from feedback.workspace import Workspace
from training import runs
from training.config import load_recipe
from training.runs import Run

Say = Callable[[str], None]
# Where Argilla can't call back, this is how late a completed label is seen.
SECONDS_BETWEEN_LOOKS = 10


class Batch(Record):
    """The labels that one version, run and report came of; `error` is why there is no report."""

    version: str
    labels: int
    run: str | None = None
    report: str | None = None
    error: str | None = None

    @property
    def done(self) -> bool:
        return self.report is not None or self.error is not None

    @property
    def outcome(self) -> str:
        """What came of it, in one line."""
        if self.error:
            return f"{self.version}: no report ({self.error}); the next batch will be tried"
        return f"{self.version}: {self.run}, {self.report}; see `veritune report show {self.report}`"


class Watched(Record):
    """What became of a collection's labels; `position` is where the last batch ended."""

    position: int = 0
    batches: tuple[Batch, ...] = ()


class Watch:
    """The labels of one collection, and what is to be done with every so many of them.

    Args:
        every: how many candidates with enough new judgements make a batch.
        overlap: how many people judge a candidate until it is complete.
        overrides: of the recipe, `key=value`; the dataset is the batch's own.
    """

    def __init__(
        self, workspace: Workspace, collection: str, every: int, recipe: str, overrides: Sequence[str], say: Say
    ) -> None:
        if not NAME.fullmatch(collection):
            raise UserError(f"collection {collection!r}: its name can't be a dataset's (letters, digits, . _ -)")
        if given := [override for override in overrides if override.startswith("dataset=")]:
            raise UserError(f"{given[0]}: leave it out; each batch's own dataset version is trained on")
        load_recipe(recipe, [*overrides, f"dataset={collection}"])
        # The same words whatever folder the watch is started from: a batch's run is known by its command.
        recipe = str(Path(recipe).resolve()) if Path(recipe).is_file() else recipe
        self.workspace, self.collection, self.every = workspace, collection, every
        self.overlap = workspace.settings.argilla.overlap
        self.recipe, self.overrides, self.say = recipe, list(overrides), say
        self.path = workspace.root / "watch" / f"{collection}.json"
        self.path.parent.mkdir(exist_ok=True)

    @property
    def watched(self) -> Watched:
        return Watched.model_validate_json(self.path.read_text()) if self.path.exists() else Watched()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the collection for this process.

        Raises:
            UserError: another watch has it.
        """
        with self.path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"collection {self.collection!r}: another veritune watch is at it; stop that first"
                ) from None
            yield

    def run(self, wake: Event, pull: Callable[[], object]) -> None:
        """Look for new labels whenever `wake` is set, and every few seconds, until it is interrupted.

        Args:
            pull: brings the labels in.
        """
        told = None
        while True:
            wake.clear()
            try:
                pull()
            except UserError as error:
                # A server that is restarted comes back; the labels wait there.
                if told != str(error):
                    self.say(f"can't look for labels now: {error}")
                    told = str(error)
            else:
                while batch := self.step():
                    self.say(batch.outcome)
                if told != (state := f"{self.waiting()} of {self.every} labels for the next batch"):
                    self.say(state)
                    told = state
            wake.wait(SECONDS_BETWEEN_LOOKS)

    def waiting(self) -> int:
        """How many candidates were completed since the last batch."""
        with Database(self.workspace.database) as database:
            return database.completed_since(self.collection, self.watched.position, self.overlap)[0]

    def step(self) -> Batch | None:
        """Finish the batch that was begun, or begin and finish the next one if there are labels enough for it.

        Returns:
            The batch that was worked on; None where there was nothing to do.
        """
        watched = self.watched
        if not watched.batches or watched.batches[-1].done:
            with Database(self.workspace.database) as database:
                labels, position = database.completed_since(self.collection, watched.position, self.overlap)
            if labels < self.every:
                return None
            # Labels that arrive between the two are in this version, and counted again for the next: never lost.
            version, _ = build(self.workspace, self.collection, [self.collection])
            batch = Batch(version=version.id, labels=labels)
            watched = Watched(position=position, batches=(*watched.batches, batch))
            self._save(watched)
            self.say(f"{labels} new labels: {version.id}")
        batch = self._finish(watched.batches[-1])
        self._save(Watched(position=watched.position, batches=(*watched.batches[:-1], batch)))
        return batch

    def _finish(self, batch: Batch) -> Batch:
        command = ["train", "run", self.recipe, *self.overrides, f"dataset={batch.version}"]
        run, failed = self._run_of(command), None
        while run is not None and run.active:
            # Of a watch that was killed: it ends by itself, at the latest when it has something to say.
            time.sleep(1)
        if run is None:
            failed = self._veritune(command)
            run = self._run_of(command)
        elif run.state != "finished":
            failed = self._veritune(["train", "resume", run.id])
        if run is None or run.state != "finished":
            return batch.model_copy(update={"run": run.id if run else None, "error": failed or "training did not end"})
        if (report := self._report_of(run)) is None:
            failed = self._veritune(["eval", run.id])
            report = self._report_of(run)
        return batch.model_copy(update={"run": run.id, "report": report, "error": None if report else failed})

    def _run_of(self, command: Sequence[str]) -> Run | None:
        words = shlex.join(["veritune", *self._options, *command])
        return next((run for run in runs.list_runs(self.workspace) if run.manifest["command"] == words), None)

    def _report_of(self, run: Run) -> str | None:
        from evaluation.results import list_results

        return next((r.report_id for r in list_results(self.workspace.reports) if run.id in r.models), None)

    @property
    def _options(self) -> list[str]:
        return ["--workspace", str(self.workspace.root)]

    def _veritune(self, command: Sequence[str]) -> str | None:
        """Run a command in a process of its own, whose memory goes when it ends; its last line if it failed."""
        last = ""
        with subprocess.Popen(
            [sys.executable, "-m", "ui", *self._options, *command],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        ) as process:
            for line in process.stderr or ():
                last = line.strip() or last
                self.say(f"  {line.rstrip()}")
        return f"{command[0]} ended with {process.returncode}: {last}" if process.returncode else None

    def _save(self, watched: Watched) -> None:
        write_atomic(self.path, json.dumps(watched.model_dump(mode="json"), indent=2) + "\n")
