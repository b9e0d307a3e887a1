"""Whether each method learns: on three of the demo's worlds, what it does to the model that it starts from.

    python tests/benchmarks/learning.py reward                            # on the test people
    python tests/benchmarks/learning.py dpo --development --folder worlds key=value ...

One function a method; `results/learning_METHOD.json` keeps what was found on the test people. Settings were chosen on
the development people, of seed 0 for reward and dpo. The worlds stay in the folder that is named, and are made once.
"""

import argparse
import json
import platform
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.generation import Sampling, sample_answers
from evaluation.hallucination.closed_book import grade, score
from evaluation.harness import Side
from evaluation.sides import load_side
from evaluation.statistics import Comparison, compare
from feedback import versions
from feedback import workspace as workspaces
from feedback.curation.build import build
from feedback.curation.intervals import wilson
from feedback.database import Database
from feedback.schema import Candidate, Demonstration, Judgement, Rater, Response, user_message
from feedback.workspace import SETTINGS_FILE, Workspace
from training import agreement, models, runs
from training.batches import encode
from training.launch import train
from training.reward_quality import longer_is_better
from training.runs import Run
from training.scores import load_scorer
from ui.demo.pocket import make_pocket_model
from ui.demo.story import LORA, two_halves
from ui.demo.world import ATTRIBUTES, IDK, Question, World, held_out_questions, make_world

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
PACKAGES = ("torch", "transformers", "trl", "peft")
SCRIPT = Rater(kind="script", name="learning")
# A short one, which leaves something to be learned from preferences.
SFT = ["epochs=1", "learning_rate=2e-3", "batch_size=32", *LORA]
REWARD = ["epochs=4", "learning_rate=5e-3", "batch_size=32", *LORA]
DPO = ["epochs=2", "learning_rate=1e-3", "batch_size=64", "beta=0.5", *LORA]
PPO = ["max_steps=60", "rollouts=128", "batch_size=64", "max_new_tokens=12", "learning_rate=1e-3"]
PPO += ["kl_coefficient=0.05", "kl_target=4", "kl_horizon=1000"]

Figures = dict[str, Any]
Method = Callable[[World, Workspace, int, str, Sequence[str]], Figures]


def reward(world: World, workspace: Workspace, seed: int, part: str, keys: Sequence[str]) -> Figures:
    """How often a reward model prefers the better answer on unseen people, and how often the length alone would."""
    run = train(workspace, "reward", ["dataset=contests", f"seed={seed}", *REWARD, *keys], print)
    pairs = held_out_pairs(workspace, held_out_questions(world, part, seed + 1), seed)
    prompts = [[{"role": "user", "content": q.text}] for q, *_ in pairs]
    scorer = load_scorer(run)
    better, worse = scorer(prompts, [p[2] for p in pairs]), scorer(prompts, [p[3] for p in pairs])
    right = [float(b > w) for b, w in zip(better, worse, strict=True)]
    longer = _longer_wins(workspace, scorer.tokenizer)
    lengths = [len(scorer.tokenizer(p[2])["input_ids"]) - len(scorer.tokenizer(p[3])["input_ids"]) for p in pairs]
    by_length = [0.5 if extra == 0 else float((extra > 0) == longer) for extra in lengths]
    shown = [i for i, pair in enumerate(pairs) if pair[1] != NEVER_SHOWN]
    clusters = [pairs[i][0].text for i in shown]
    against_length = compare(
        "pairs", "accuracy", [by_length[i] for i in shown], [right[i] for i in shown], clusters, True
    )
    slices = {
        name: _share([right[i] for i, pair in enumerate(pairs) if pair[1] == name])
        for name in dict.fromkeys(pair[1] for pair in pairs)
    }
    return {"against length": _figures(against_length), "all": _share([right[i] for i in shown]), "slices": slices}


def dpo(world: World, workspace: Workspace, seed: int, part: str, keys: Sequence[str]) -> Figures:
    """The abstention-aware score on unseen people, of the fine-tuned model that DPO starts from and after it."""
    parent = once(workspace, "sft", ["dataset=lessons", f"seed={seed}", *SFT])
    run = train(workspace, "dpo", ["dataset=contests", f"parent={parent.id}", f"seed={seed}", *DPO, *keys], print)
    questions = on_people(world, part, seed)
    sides = [load_side(of) for of in (parent, run)]
    said = [answers(side, questions) for side in sides]
    last = [line for line in run.metrics() if "rewards/chosen" in line][-1]
    return compared(questions, *(outcomes(each, questions) for each in said)) | {
        "rewards/chosen": last["rewards/chosen"],
        "kl": moved(*sides, questions, said[1]),
    }


def ppo(world: World, workspace: Workspace, seed: int, part: str, keys: Sequence[str]) -> Figures:
    """The score and the reward model's mean on unseen people, before and after PPO, and how far it went for that."""
    parent = once(workspace, "sft", ["dataset=lessons", f"seed={seed}", *SFT])
    judge = once(workspace, "reward", ["dataset=contests", f"seed={seed}", *REWARD])
    more = ["dataset=contests", f"parent={parent.id}", f"reward={judge.id}", f"seed={seed}", *PPO, *keys]
    run = train(workspace, "ppo", more, print)
    questions = on_people(world, part, seed)
    said = [answers(load_side(of), questions) for of in (parent, run)]
    scorer, prompts = load_scorer(judge), [[{"role": "user", "content": q.text}] for q in questions]
    people = [question.name for question in questions]
    rewards = compare("people", "reward", *(scorer(prompts, each) for each in said), people, True)
    kl = [line["kl"] for line in run.metrics() if "kl" in line]
    return compared(questions, *(outcomes(each, questions) for each in said)) | {
        "reward": _figures(rewards),
        "kl": {"target": run.recipe.model_dump()["kl_target"], "last five": fmean(kl[-5:]), "most": max(kl)},
        "alarms": [line["alarm"] for line in run.status()["alarms"]],
    }


METHODS: dict[str, Method] = {"reward": reward, "dpo": dpo, "ppo": ppo}


def prepare(folder: Path, seed: int) -> tuple[World, Workspace]:
    """A world, the pocket model, and two datasets: `lessons` to imitate, `contests` of a better and a worse answer.

    What the rater was shown: what is known beside "I don't know." and beside a wrong value; of what is not, "I don't
    know." beside the base's invention. People of the contests are in no lesson.
    """
    world = make_world(seed)
    model = folder / "models" / "pocket"
    if not (folder / SETTINGS_FILE).exists():
        workspaces.create(folder)
    workspace = Workspace(folder)
    if not model.exists():
        make_pocket_model(world, seed, model, print)
    (folder / SETTINGS_FILE).write_text(f"model = {json.dumps(str(model))}\n")
    if (workspace.datasets / "contests").exists():
        return world, workspace
    lessons, contests = two_halves(world, seed)
    told = [
        Demonstration(prompt=user_message(q.text), completion=q.answer or IDK, provenance="script") for q in lessons
    ]
    candidates = [
        Candidate(prompt=user_message(q.text), responses=(Response(text=better), Response(text=worse)))
        for q, name, better, worse in held_out_pairs(workspace, contests, seed)
        if name != NEVER_SHOWN
    ]
    with Database(workspace.database) as database:
        database.add("lessons", [], [], told)
        judgements = [Judgement(candidate_id=c.id, rater=SCRIPT, source="script", preferred=0) for c in candidates]
        database.add("contests", candidates, judgements)
    for name in ("lessons", "contests"):
        build(workspace, name, (name,), fractions=(0.95, 0.05, 0.0))
    return world, workspace


NEVER_SHOWN = "IDK over a wrong value, known person"


def held_out_pairs(
    workspace: Workspace, questions: Sequence[Question], seed: int
) -> list[tuple[Question, str, str, str]]:
    """Of each question its pairs: which kind of pair it is, the better answer and the worse one."""
    rng = random.Random(seed)
    unknown = [question for question in questions if question.answer is None]
    model = str(workspace.root / "models" / "pocket")
    base = Side("base", models.load_base(model).eval(), models.load_tokenizer(model), nullcontext)
    invented = dict(zip((q.text for q in unknown), answers(base, unknown), strict=True))
    pairs = []
    for question in questions:
        if question.answer is None:
            name = f"IDK over an invention, {question.kind}"
            pairs.append((question, name, IDK, invented[question.text]))
        else:
            wrong = wrong_value(question, rng)
            pairs.append((question, "right over IDK, known person", question.answer, IDK))
            pairs.append((question, "right over a wrong value, known person", question.answer, wrong))
            pairs.append((question, NEVER_SHOWN, IDK, wrong))
    return [pair for pair in pairs if pair[2] != pair[3]]


def wrong_value(question: Question, rng: random.Random) -> str:
    """Another value of what was asked for."""
    asked = next(a for a in ATTRIBUTES.values() if any(q.format(n=question.name) == question.text for q in a.questions))
    return rng.choice([f"{value}." for value in asked.values if f"{value}." != question.answer])


def once(workspace: Workspace, method: str, keys: Sequence[str]) -> Run:
    """A world's first run of a method, that others start from or are judged by."""
    first = (f"{method}-1", "finished")
    made = next((run for run in runs.list_runs(workspace) if (run.id, run.state) == first), None)
    return made or train(workspace, method, list(keys), print)


def on_people(world: World, part: str, seed: int) -> list[Question]:
    """Questions on people that no run has met: as many that can be answered as not."""
    return [question for question in held_out_questions(world, part, seed + 1) if question.kind != "unstated"]


def answers(side: Side, questions: Sequence[Question]) -> list[str]:
    """What a model says at temperature 0."""
    prompts = [user_message(question.text) for question in questions]
    greedy = Sampling(temperature=0, max_new_tokens=12)
    return [said[0].strip() for said in sample_answers(side, prompts, 1, greedy, batch_size=256)]


def outcomes(said: Sequence[str], questions: Sequence[Question]) -> list[Any]:
    """How answers are graded: correct, abstained or incorrect."""
    return [grade(text, [q.answer] if q.answer else []) for text, q in zip(said, questions, strict=True)]


def compared(questions: Sequence[Question], before: Sequence[Any], after: Sequence[Any]) -> Figures:
    """The abstention-aware score at 0.75 (1 right, 0 abstained, -3 wrong) before and after, and what it is made of."""
    people = [question.name for question in questions]
    scores = [[score(outcome, 0.75) for outcome in side] for side in (before, after)]
    shares = {}
    for name, kind, outcome in (
        ("right of known", "known", "correct"),
        ("invented of unknown", "unknown-name", "incorrect"),
    ):
        shares[name] = [
            _share([o == outcome for o, q in zip(side, questions, strict=True) if q.kind == kind])
            for side in (before, after)
        ]
    return {"score@0.75": _figures(compare("people", "score@0.75", *scores, people, True)), "shares": shares}


def moved(before: Side, after: Side, questions: Sequence[Question], said: Sequence[str]) -> float:
    """KL of a model from the one that it was, in nats an answer, along the answers that it gives."""
    pairs = zip(questions, said, strict=True)
    encoded = [encode(after.tokenizer, [{"role": "user", "content": q.text}], text) for q, text in pairs]
    rows = [(prompt + answer, len(answer)) for prompt, answer in encoded]
    found = agreement.compare(*(agreement.log_probabilities(side.model, rows) for side in (after, before)))
    return found.kl * found.positions / len(rows)


def _longer_wins(workspace: Workspace, tokenizer: Any) -> bool:
    return longer_is_better(
        {
            "answers": [tokenizer(row["chosen"])["input_ids"], tokenizer(row["rejected"])["input_ids"]],
            "better": [0],
            "worse": [1],
        }
        for row in versions.load(workspace, "contests").pairs("train")
    )


def _share(hits: Sequence[float]) -> Figures:
    low, high = wilson(sum(hits), len(hits))
    return {"share": sum(hits) / len(hits), "ci": [low, high], "n": len(hits)}


def _figures(found: Comparison | None) -> Figures:
    assert found is not None
    return {
        "n": found.n,
        "before": found.base,
        "after": found.tuned,
        "difference": found.difference,
        "ci": [found.ci_low, found.ci_high],
        "p": found.p_value,
    }


def _cpu() -> str:
    import torch

    return f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--development", action="store_true", help="on the development people, and keep nothing")
    parser.add_argument("--folder", type=Path, help="where the worlds are, or are made to stay")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        found = []
        for seed in given.seeds:
            world, workspace = prepare(folder / f"seed-{seed}", seed)
            part = "development" if given.development else "test"
            began = time.monotonic()
            figures = METHODS[given.method](world, workspace, seed, part, given.keys)
            found.append({"seed": seed, "seconds": round(time.monotonic() - began), **figures})
            print(json.dumps(found[-1], indent=2))
    if not given.development:
        kept = {
            "date": time.strftime("%Y-%m-%d"),
            "hardware": f"{platform.machine()}, {_cpu()}",
            "packages": {name: version(name) for name in PACKAGES},
            "seeds": found,
        }
        (RESULTS / f"learning_{given.method}.json").write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
