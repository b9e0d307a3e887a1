"""Which tasks can be asked: those of evaluation/tasks, lm-eval's own by name, and the data that they read."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluation.hallucination.closed_book import METRICS as CLOSED_BOOK_METRICS
from feedback.errors import UserError

OURS = Path(__file__).parent / "tasks"
# Tasks of each suite besides the workspace's own questions and pairs.
TRUTHFUL = ("truthfulqa_mc1", "truthfulqa_mc2", "halueval_recognition", "halueval_preference", "nq_open")
SUITES: Mapping[str, tuple[str, ...]] = {"quick": (), "truthful": TRUTHFUL, "full": (*TRUTHFUL, "gsm8k")}
# What veritune.toml calls the data that tasks share; other tasks' data goes by the task's own name.
SHARED_DATA = {
    "truthfulqa_mc1": "truthfulqa",
    "truthfulqa_mc2": "truthfulqa",
    "halueval_recognition": "halueval",
    "halueval_preference": "halueval",
}
# Of TruthfulQA.csv.
COLUMNS = {"Question", "Best Answer", "Correct Answers", "Incorrect Answers"}


@dataclass(frozen=True)
class TaskSource:
    """A task under a name of its own.

    Args:
        name: what reports call it.
        kind: a YAML file of evaluation/tasks, or a task of lm-eval's.
        data: a local file, or a folder with one file for each split; None reads what the task names, from the hub.

    Raises:
        UserError: there is no such task.
    """

    name: str
    kind: str
    data: Path | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The task as lm-eval takes it, reading the local data."""
        from lm_eval.tasks._yaml_loader import load_yaml

        config = load_yaml(self._yaml())
        if self.data is not None:
            asked, shown = config.get("test_split") or config["validation_split"], config.get("training_split")
            files = {asked: self.data}
            if self.data.is_dir():
                files = {split: self.data / f"{split}.jsonl" for split in (asked, shown) if split}
            elif config.get("num_fewshot"):
                raise UserError(
                    f"{self.data}: task {self.kind} needs a folder, with {shown}.jsonl for its examples too"
                )
            config |= {
                "dataset_path": "json",
                "dataset_name": None,
                "dataset_kwargs": {"data_files": {split: str(path) for split, path in files.items()}},
                "training_split": shown if shown in files else None,
            }
        return {**config, "task": self.name}

    @cached_property
    def metrics(self) -> dict[str, bool]:
        """The task's metrics in order, and whether a higher value is better; of several filters each has its own."""
        listed = {entry["metric"]: entry.get("higher_is_better", True) for entry in self.config["metric_list"]}
        if len(self.filters) > 1:
            listed = {f"{metric},{name}": better for metric, better in listed.items() for name in self.filters}
        return CLOSED_BOOK_METRICS | listed if self.graded else listed

    @property
    def filters(self) -> list[str]:
        return [each["name"] for each in self.config.get("filter_list") or ()]

    @property
    def generated(self) -> bool:
        """Whether models answer in words, rather than say how probable they find given ones."""
        return bool(self.config["output_type"] == "generate_until")

    @property
    def graded(self) -> bool:
        """Whether its answers are graded correct, incorrect or abstained."""
        return self.kind in ("closed_book", "nq_open")

    @property
    def version(self) -> str:
        return str((self.config.get("metadata") or {}).get("version", "none"))

    @property
    def own(self) -> bool:
        """Whether it asks the workspace's own questions or pairs, in the form of the model's chat template."""
        return self.kind in ("closed_book", "preferences")

    def _yaml(self) -> Path:
        ours = OURS / f"{self.kind}.yaml"
        if ours.is_file():
            return ours
        import lm_eval

        # By its file: lm-eval's own index of all its 14,000 tasks takes from seconds to a minute.
        for path in sorted((Path(lm_eval.__file__).parent / "tasks").rglob(f"{self.kind}.yaml")):
            if f"task: {self.kind}" in path.read_text(encoding="utf-8").splitlines():
                return path
        raise UserError(
            f"task {self.kind!r}: neither in evaluation/tasks nor a task of lm-eval that has a file of its own; "
            "`lm_eval ls tasks` lists lm-eval's"
        )


def truthfulqa_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of TruthfulQA.csv in the form that lm-eval's tasks read, the right choice first.

    As in the paper (Lin et al., arXiv 2109.07958, section 3.2): MC1 is the best answer against the wrong ones, MC2 all
    right ones against all wrong ones.

    Raises:
        UserError: it lacks a column.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if missing := COLUMNS - set(reader.fieldnames or ()):
            raise UserError(f"{path}: has no column {', '.join(sorted(missing))}")
        for row in reader:
            right, wrong = (_listed(row[f"{kind} Answers"]) for kind in ("Correct", "Incorrect"))
            yield {
                "question": row["Question"],
                "mc1_targets": {"choices": [row["Best Answer"].strip(), *wrong], "labels": [1] + [0] * len(wrong)},
                "mc2_targets": {"choices": [*right, *wrong], "labels": [1] * len(right) + [0] * len(wrong)},
            }


def named_source(name: str, data: Mapping[str, str], root: Path, folder: Path) -> TaskSource:
    """A task by its name, on its local data where veritune.toml names any.

    Args:
        data: evaluation.data of veritune.toml, its paths seen from `root`.
        folder: takes data that has to be put into the form that the task reads.

    Raises:
        UserError: there is no such task or file, or the file can't be read.
    """
    key = SHARED_DATA.get(name, name)
    if key not in data:
        return TaskSource(name, name)
    path = root / data[key]
    if not path.exists():
        raise UserError(f"evaluation.data.{key}: {path} does not exist")
    if key == "truthfulqa" and path.suffix == ".csv":
        target = folder / "truthfulqa.jsonl"
        target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in truthfulqa_rows(path)))
        path = target
    return TaskSource(name, name, path)


def _listed(text: str) -> list[str]:
    return [answer for part in text.split(";") if (answer := part.strip())]
