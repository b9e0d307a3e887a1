"""What a report holds: results.json (the figures) and samples.parquet (one row an item, both answers)."""

import io
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError

from evaluation.detectors import Accuracy, Interval
from evaluation.statistics import Comparison
from evaluation.votes import Votes
from feedback.errors import UserError
from feedback.files import write_atomic
from feedback.schema import Record

RESULTS = "results.json"
SAMPLES = "samples.parquet"
# Columns of a sample that stand in it as JSON.
AS_JSON = ("base_metrics", "tuned_metrics", "base_spans", "tuned_spans")

# JSON has no NaN: a metric that isn't finite is one that isn't defined.
Metric = Annotated[
    float | None, BeforeValidator(lambda value: None if value is None or not math.isfinite(value) else value)
]
Spans = tuple[tuple[int, int], ...]
Outcome = Literal["correct", "abstained", "incorrect"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Task(Record):
    """Which questions a task asked; equal sample hashes, equal questions."""

    version: str
    n: int
    source: str
    samples_hash: str


class Flips(Record):
    """Items that only the tuned model got right, and items that only the base did."""

    gained: int
    lost: int


class Calibration(Record):
    """One figure of both models' confidence in the answers that they attempted, of the `n` that were asked.

    None stands where a model attempted nothing, or only right answers or only wrong ones.
    """

    task: str
    figure: str
    higher_is_better: bool
    n: int
    base_attempted: int
    tuned_attempted: int
    base: float | None
    base_interval: Interval | None
    tuned: float | None
    tuned_interval: Interval | None
    difference: float | None
    difference_interval: Interval | None


class Ancestor(Record):
    """One link from the labels to the tuned model. `state` is `ok`, or says what became of it."""

    kind: str
    id: str
    hash: str | None
    state: str


class Results(Record):
    """results.json, which `veritune report show --json` prints.

    `also` names further tuned models, each with its flips against the same base.

    `command` repeats the evaluation as it stands. Comparisons come in the suite's order, the one that matters most
    first: the headline keeps to that order and so can't pick the most flattering figure. `detectors` are
    those that had a part in it, each with what `veritune validate-detectors` had found of it.
    """

    report_id: str
    base: str
    tuned: str
    comparisons: tuple[Comparison, ...]
    flips: Flips
    also: dict[str, Flips] = Field(default_factory=dict)
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    command: str
    suite: str
    limit: int | None
    tasks: dict[str, Task]
    calibration: tuple[Calibration, ...] = ()
    detectors: dict[str, tuple[Accuracy, ...]] = Field(default_factory=dict)
    votes: Votes | None = None
    lineage: tuple[Ancestor, ...] = ()
    notes: tuple[str, ...] = ()
    environment: dict[str, str]
    hardware: str

    @property
    def models(self) -> tuple[str, ...]:
        """All tuned models, in the order in which they were named."""
        return (self.tuned, *self.also)

    def of(self, model: str) -> "Results":
        """What one of several tuned models shows, as a report on it alone; p stays adjusted over all."""
        if not self.also:
            return self
        kept = tuple(comparison for comparison in self.comparisons if comparison.model == model)
        flips = {self.tuned: self.flips, **self.also}[model]
        return self.model_copy(update={"tuned": model, "also": {}, "comparisons": kept, "flips": flips})


class Sample(Record):
    """One item with what both models answered.

    `item` is a hash of the question, `cluster` of the prompt it belongs to. An empty `reference` marks a question
    that can't be answered, None one that has no accepted answers (multiple choice). `confidence` is the answer's
    probability under its model. `model` is the tuned one of several. `context` is the text that the answer has to stand
    on, `spans` the places of an answer that a check takes for made up, in characters.
    """

    task: str
    item: str
    cluster: str
    slice: str | None = None
    prompt: str
    context: str | None = None
    reference: tuple[str, ...] | None = None
    base_answer: str
    tuned_answer: str
    base_outcome: Outcome | None = None
    tuned_outcome: Outcome | None = None
    base_confidence: float | None = Field(default=None, ge=0, le=1)
    tuned_confidence: float | None = Field(default=None, ge=0, le=1)
    base_metrics: dict[str, Metric] = Field(default_factory=dict)
    tuned_metrics: dict[str, Metric] = Field(default_factory=dict)
    model: str | None = None
    base_spans: Spans = ()
    tuned_spans: Spans = ()

    @property
    def answerable(self) -> bool:
        return self.reference != ()

    @property
    def graded(self) -> bool:
        return self.base_outcome is not None and self.tuned_outcome is not None

    def right(self, outcome: Outcome | None) -> bool:
        """Whether an outcome is the right one here: an answer, or an abstention where there is none."""
        return outcome == ("correct" if self.answerable else "abstained")

    @property
    def flip(self) -> Literal["gained", "lost"] | None:
        """`gained` where only the tuned model is right, `lost` where only the base is."""
        base, tuned = self.right(self.base_outcome), self.right(self.tuned_outcome)
        if not self.graded or base == tuned:
            return None
        return "gained" if tuned else "lost"


def count_flips(samples: Sequence[Sample]) -> Flips:
    flips = [sample.flip for sample in samples]
    return Flips(gained=flips.count("gained"), lost=flips.count("lost"))


def named_apart(samples: Sequence[Sample]) -> list[Sample]:
    """The same samples; where there are several tuned models, a task is called by its model too."""
    return [each.model_copy(update={"task": f"{each.model}, {each.task}"}) if each.model else each for each in samples]


def write_results(folder: Path, results: Results) -> None:
    write_atomic(folder / RESULTS, results.model_dump_json(indent=2) + "\n")


def read_results(folder: Path) -> Results:
    """The figures of a report.

    Raises:
        UserError: results.json is missing, or not what veritune wrote.
    """
    path = folder / RESULTS
    try:
        return Results.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such report; `veritune report list` shows what there is") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {place}: {first['msg']}; repeat the evaluation with `veritune eval`") from None


def write_samples(folder: Path, samples: Sequence[Sample]) -> None:
    """Write samples.parquet; lists and metrics stand in it as JSON strings, so that any tool can read it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for sample in samples:
        row = sample.model_dump()
        row["reference"] = None if sample.reference is None else json.dumps(sample.reference, ensure_ascii=False)
        row |= {key: json.dumps(row[key], ensure_ascii=False) for key in AS_JSON}
        rows.append(row)
    kinds = {"base_confidence": pa.float64(), "tuned_confidence": pa.float64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in Sample.model_fields])
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    write_atomic(folder / SAMPLES, sink.getvalue())


def read_samples(folder: Path) -> list[Sample]:
    """The items of a report, in the order in which they were written.

    Raises:
        UserError: samples.parquet is missing, or not what veritune wrote.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / SAMPLES
    try:
        # Not by path: pyarrow would take a folder named `key=value` above it for a partition column.
        rows = pq.read_table(io.BytesIO(path.read_bytes())).to_pylist()
        for row in rows:
            row["reference"] = None if row["reference"] is None else json.loads(row["reference"])
            row |= {key: json.loads(row[key]) for key in AS_JSON if key in row}
        return [Sample.model_validate(row) for row in rows]
    except FileNotFoundError:
        raise UserError(f"{path}: missing; repeat the evaluation with `veritune eval`") from None
    except (pa.ArrowException, ValidationError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: damaged ({reason}); repeat the evaluation with `veritune eval`") from None


def list_results(reports: Path) -> list[Results]:
    """All reports of a workspace, oldest first."""
    found = [read_results(path.parent) for path in reports.glob(f"*/{RESULTS}") if not path.parent.name.startswith(".")]
    return sorted(found, key=lambda results: results.created_at)
