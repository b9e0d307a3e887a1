"""What an evaluation asks: the workspace's own questions and pairs, and the tasks of a suite."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evaluation.harness import load_task
from evaluation.task_sources import SUITES, TaskSource, named_source
from feedback import versions
from feedback.errors import UserError
from feedback.files import canonical_json, write_atomic
from feedback.schema import Message, Record, prompt_key
from feedback.workspace import Workspace
from training import batches
from training.runs import Run


class HeldOutQuestion(Record):
    """A line of evaluation.questions; no answers mark a question that can't be answered.

    A context stands before the question, and is what the answer has to stand on.
    """

    question: str
    answers: list[str]
    slice: str | None = None
    context: str | None = None


def own_tasks(workspace: Workspace, of: Sequence[Run | None], tokenizer: Any, folder: Path) -> list[TaskSource]:
    """The workspace's own held-out questions, and the held-out pairs of the runs' dataset.

    Pairs are held out for all only where all were trained on one dataset.
    """
    tasks = [TaskSource(path.stem, "closed_book", path) for path in _question_files(workspace)]
    datasets = {run.manifest["dataset"]["id"] for run in of if run}
    pairs = versions.load(workspace, datasets.pop()).pairs("test") if len(datasets) == 1 else []
    if len(pairs):
        path = folder / "preferences.jsonl"
        write_atomic(path, "".join(canonical_json(_rendered(tokenizer, row)) + "\n" for row in pairs))
        tasks.append(TaskSource("preferences", "preferences", path))
    return tasks


def named_tasks(workspace: Workspace, suite: str, named: Sequence[str], folder: Path) -> list[TaskSource]:
    """The suite's tasks and those that were named, each with its data at hand.

    Raises:
        UserError: there is no such task, or its data is not to be had; a line for each.
    """
    settings, found = workspace.settings.evaluation, []
    mistakes: list[str] = []
    for name in dict.fromkeys([*SUITES[suite], *(settings.tasks if suite == "full" else ()), *named]):
        try:
            found.append(named_source(name, settings.data, workspace.root, folder))
            load_task(found[-1])
        except UserError as error:
            mistakes += error.lines
    if mistakes:
        raise UserError(*mistakes)
    return found


def _question_files(workspace: Workspace) -> list[Path]:
    """The files of evaluation.questions, each row checked."""
    mistakes, paths = [], []
    for name in workspace.settings.evaluation.questions:
        path = workspace.root / name
        paths.append(path)
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            mistakes.append(f"evaluation.questions: {path} can't be read ({error})")
            continue
        for number, line in enumerate(lines, 1):
            try:
                HeldOutQuestion.model_validate_json(line, strict=True)
            except ValidationError:
                mistakes.append(f'{path}, line {number}: must be {{"question": text, "answers": [text, ...]}}')
    stems = [path.stem for path in paths]
    mistakes += [f"evaluation.questions: two files are named {stem!r}" for stem in set(stems) if stems.count(stem) > 1]
    if mistakes:
        raise UserError(*mistakes[:20])
    return paths


def _rendered(tokenizer: Any, pair: dict[str, Any]) -> dict[str, str]:
    """A pair as the model sees it: prompt and answers in the chat template's form, the EOS with the answers."""
    prompt, chosen = batches.render(tokenizer, pair["prompt"], pair["chosen"])
    _, rejected = batches.render(tokenizer, pair["prompt"], pair["rejected"])
    question = prompt_key(tuple(Message(**message) for message in pair["prompt"]))
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "cluster": question}
