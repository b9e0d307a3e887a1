"""The demo: every step is the command that a user would type, except the parts that a person would play."""

import json
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from evaluation.generation import Sampling, sample_answers
from evaluation.harness import Side
from evaluation.sides import load_sides
from feedback import workspace as workspaces
from feedback.argilla.project import project_name
from feedback.argilla.raters import NewRater, add_rater
from feedback.argilla.server import control
from feedback.argilla.server.address import require_free
from feedback.database import Database
from feedback.errors import UserError
from feedback.files import write_atomic
from feedback.schema import Candidate, Response, user_message
from feedback.workspace import Workspace
from training import models, runs
from ui.cli.common import say
from ui.demo import rater
from ui.demo.figures import tell_comparisons, tell_revisions
from ui.demo.pocket import make_pocket_model
from ui.demo.practice import PRINCIPLES, make_apprentice
from ui.demo.world import IDK, Question, World, held_out_questions, judge_questions, lesson_questions, make_world

MARK = ".veritune-demo"
# Chosen on the development people of seeds 0 to 2; the test people are for the report alone. The adapter sits in the
# last layer only: what the model knows lies below it, and stays as it is.
ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
LAST_LAYER = [f"layers.2.self_attn.{name}" for name in ATTENTION] + [f"layers.2.mlp.{name}" for name in MLP]
LORA = ["lora.r=8", "lora.alpha=16", f"lora.targets=[{', '.join(LAST_LAYER)}]"]
SFT = ["epochs=2", "learning_rate=2e-3", "batch_size=32", "log_every=10", *LORA]
DPO = ["epochs=3", "learning_rate=1e-3", "batch_size=64", "beta=0.5", "log_every=10"]

STAGES = {"sft-1": "SFT, people", "dpo-1": "DPO, people", "sft-2": "SFT, constitution"}
GOLD = "questions/judge.jsonl"


def run_demo(folder: Path, seed: int) -> None:
    """Make a world and a model that invents, collect feedback on it, train on that, and measure what came of it.

    Args:
        folder: the demo's workspace; one that an earlier demo left is replaced.

    Raises:
        UserError: the folder holds something else.
    """
    began = time.monotonic()
    if folder.exists() and not (folder / MARK).exists():
        raise UserError(f"--folder {folder}: exists and is no demo's workspace; name another")
    if folder.exists():
        control.stop(Workspace(folder.resolve()))
        shutil.rmtree(folder)
    world = make_world(seed)
    model = folder.resolve() / "models" / "pocket"
    _title(1, "A small world, and a model that answers every question about it, known or not")
    strangers = len(world.names) - len(world.facts)
    say(f"{len(world.facts)} people with five known facts each, and {strangers} names that nobody knows")
    workspace = workspaces.create(folder)
    (folder / MARK).touch()
    make_pocket_model(world, seed, model, say)
    _write_settings(workspace, world, model, seed)

    lessons, contests = two_halves(world, seed)
    _title(2, "First feedback: a scripted rater rewrites the base's answers, in the labelling server")
    _veritune(workspace, "feedback", "serve", "--port", str(_free_port()))
    say(f"$ veritune feedback raters add {rater.NAME} --kind script")
    account = add_rater(workspace, rater.NAME, "script")
    base = Side("base", models.load_base(str(model)).eval(), models.load_tokenizer(str(model)), nullcontext)
    said = _answers(base, lessons)
    _label(workspace, "rewrites", lessons, [[(text, "base")] for text in said], account, rater.rewrite)
    _veritune(workspace, "data", "build", "lessons", "--from", "rewrites", "--raters", "people")

    _title(3, "Supervised fine-tuning on the rewrites")
    _veritune(workspace, "train", "sft", "dataset=lessons", f"seed={seed}", *SFT)

    _title(4, "Second feedback: new questions, and the rater says which of two answers is better")
    base, tuned = load_sides(runs.find(workspace, "sft-1"))
    pairs = [_contest(*answers) for answers in zip(_answers(base, contests), _answers(tuned, contests), strict=True)]
    _label(workspace, "contests", contests, pairs, account, rater.prefer)
    _veritune(workspace, "data", "build", "contests", "--from", "contests", "--raters", "people")

    _title(5, "Direct preference optimisation, going on from the fine-tuned adapter")
    _veritune(workspace, "train", "dpo", "dataset=contests", "parent=sft-1", f"seed={seed}", *DPO)

    _title(6, "A constitution in people's place: a copy of the base criticises the base's answers and revises them")
    apprentice = model.with_name("apprentice")
    say(f"it has been shown how that is done, on other people; its principles: {workspace.root / PRINCIPLES.name}")
    make_apprentice(world, seed, model, apprentice, say)
    _veritune(workspace, "feedback", "revise", "rewrites", "--model", str(apprentice), "--max-new-tokens", "32")
    tell_revisions(workspace, "rewrites", lessons)
    _veritune(workspace, "data", "build", "revisions", "--from", "rewrites", "--raters", "ai")
    _veritune(workspace, "train", "sft", "dataset=revisions", f"seed={seed}", *SFT)

    _title(7, "The same model as a judge: measured on people that no stage sees, then beside the rater")
    gold = f"llmbar:{workspace.root / GOLD}"
    _veritune(workspace, "feedback", "judge", "--model", str(apprentice), "--evaluate", gold)
    _veritune(workspace, "feedback", "judge", "contests", "--model", str(apprentice))
    _veritune(workspace, "feedback", "agreement", "contests")
    _veritune(workspace, "data", "build", "judged", "--from", "contests", "--raters", "ai")

    _title(8, "Evaluation on people that no stage has seen, each model against the base")
    for run_id in STAGES:
        _veritune(workspace, "eval", run_id)
    tell_comparisons(workspace, STAGES)
    tries = [
        next(q.text for q in held_out_questions(world, "test", seed + 1) if q.kind == k)
        for k in ("known", "unknown-name")
    ]
    say(f"to try in `veritune ui`: {tries[0]!r} (it can be known) and {tries[1]!r} (it can not)")
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    say(f"\nThe demo took {minutes} min {seconds} s; its workspace is {workspace.root}")
    server = control.status(workspace)
    say(f"labelling server: {server.url}, user {server.username}, password in {server.credentials}")


def stop_labelling(folder: Path) -> None:
    """End the demo's labelling server, if this folder is a demo's."""
    if (folder / MARK).exists() and control.stop(Workspace(folder.resolve())):
        say("the labelling server has ended")


def _title(number: int, text: str) -> None:
    say(f"\n{number}. {text}")


def _veritune(workspace: Workspace, *arguments: str) -> None:
    from ui.cli import app

    say(f"$ veritune {shlex.join(arguments)}")
    app(["--workspace", str(workspace.root), *arguments], standalone_mode=False)


def _write_settings(workspace: Workspace, world: World, model: Path, seed: int) -> None:
    """Held-out questions as a user would write them down, pairs to measure a judge on, principles, the base model."""
    questions = held_out_questions(world, "test", seed + 1)
    files = {
        "people": [question for question in questions if question.kind != "unstated"],
        "unstated": [question for question in questions if question.kind == "unstated"],
    }
    (workspace.root / "questions").mkdir()
    for name, rows in files.items():
        lines = [
            json.dumps({"question": q.text, "answers": [q.answer] if q.answer else [], "slice": q.kind}) for q in rows
        ]
        write_atomic(workspace.root / "questions" / f"{name}.jsonl", "\n".join(lines) + "\n")
    pairs = [json.dumps(row) for row in judge_questions(questions, seed)]
    write_atomic(workspace.root / GOLD, "\n".join(pairs) + "\n")
    shutil.copy(PRINCIPLES, workspace.root)
    paths = json.dumps([f"questions/{name}.jsonl" for name in files])
    settings = (
        f"model = {json.dumps(str(model))}\n\n[constitution]\nprinciples = {json.dumps(PRINCIPLES.name)}\n\n"
        f"[evaluation]\nquestions = {paths}\n"
    )
    write_atomic(workspace.root / workspaces.SETTINGS_FILE, settings)


def two_halves(world: World, seed: int) -> tuple[list[Question], list[Question]]:
    """Questions on a third of the lessons' people and on the other two, so that DPO learns on new ones."""
    first = {*world.lesson_names[::3], *world.strangers["lesson"][::3]}
    halves: tuple[list[Question], list[Question]] = ([], [])
    for question in lesson_questions(world, seed):
        halves[question.name not in first].append(question)
    return halves


def _answers(side: Side, questions: Sequence[Question]) -> list[str]:
    prompts = [user_message(question.text) for question in questions]
    sampling = Sampling(temperature=0, max_new_tokens=12)
    return [answers[0].strip() for answers in sample_answers(side, prompts, 1, sampling, batch_size=256)]


def _contest(base: str, tuned: str) -> list[tuple[str, str]]:
    """The tuned model's answer beside "I don't know.", or beside the base's where that is what it says."""
    return [(tuned, "sft-1"), (base, "base") if tuned == IDK else (IDK, "stock answer")]


def _label(
    workspace: Workspace,
    collection: str,
    questions: Sequence[Question],
    answers: Sequence[Sequence[tuple[str, str]]],
    account: NewRater,
    judge: Callable[[Question, rater.Fields], rater.Values],
) -> None:
    """Send questions and answers to the labelling server, let the script label them there, and bring that back."""
    candidates = [
        Candidate(
            prompt=user_message(question.text),
            responses=tuple(Response(text=text, model=model) for text, model in said),
            metadata={"kind": question.kind},
        )
        for question, said in zip(questions, answers, strict=True)
    ]
    with Database(workspace.database) as database:
        database.add(collection, candidates)
    _veritune(workspace, "feedback", "push", collection)
    address, password = control.status(workspace).url, account.password
    assert address is not None
    assert password is not None
    known = {question.text: question for question in questions}
    project = project_name(collection, len(candidates[0].responses))
    count = rater.label(address, account.username, password, project, known, judge, say)
    say(f"{count} records labelled by {account.username}, as an annotator at the server's own interface")
    _veritune(workspace, "feedback", "pull", collection)


def _free_port() -> int:
    """The labelling server's own port, or the next one that is free."""
    for port in range(control.PORT, control.PORT + 100):
        try:
            require_free("127.0.0.1", port)
        except UserError:
            continue
        return port
    raise UserError(f"ports {control.PORT} to {control.PORT + 99}: all taken; the labelling server needs one of them")
