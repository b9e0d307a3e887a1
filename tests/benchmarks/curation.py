"""`data build` with every step on, over 100,000 pairs and more: time, memory, and what it finds of what was planted.

The pairs are of made-up words, seeded. Planted among them: rows that differ in case and white space alone, rows with
one word in each part replaced, and rows whose prompt holds an evaluation question, written otherwise. Raters of known
reliability vote on them. Each size is made by one process, built by a second and checked by a third.
"""

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from feedback import workspace as workspaces
from feedback.curation.build import build
from feedback.curation.options import Options
from feedback.database import Database
from feedback.files import canonical_json
from feedback.schema import Candidate, Judgement, Rater, Response, user_message
from feedback.workspace import Workspace

RESULTS = Path(__file__).parent / "results" / "curation.json"
PACKAGES = ("datasketch", "numpy", "pyarrow", "pydantic")
OPTIONS = Options(aggregation="dawid-skene", conflicts="soft", near_duplicates=0.8, balance_length=True)
RATERS = {"ann": 0.95, "bob": 0.8, "cid": 0.65}
JUDGE = 0.75
QUESTIONS = 2_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
EXACT, NEAR, LEAK, PLAIN = "exact duplicate", "near duplicate", "evaluation leak", "plain"


class Language:
    """Sentences of 20,000 made-up words, some of them frequent and most of them rare."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
        self.words = sorted({"".join(self.rng.choices(syllables, k=self.rng.randint(2, 4))) for _ in range(20_000)})
        self.rng.shuffle(self.words)
        total = 0.0
        self.cumulative = [total := total + 1 / (rank + 10) for rank in range(len(self.words))]

    def text(self, length: int) -> list[str]:
        chosen = self.rng.choices(self.words, cum_weights=self.cumulative, k=length)
        return [word + "." if place % 12 == 11 else word for place, word in enumerate(chosen)]

    def replaced(self, words: Sequence[str], place: int) -> list[str]:
        return [*words[:place], self.rng.choice(self.words) + "x", *words[place:][1:]]


def planted_rows(pairs: int, questions: Sequence[str]) -> Iterator[tuple[str, int, str, str, str]]:
    """What was planted, the number of its group, prompt, better answer, worse answer."""
    language = Language(1)
    rng = language.rng
    made = 0
    while made < pairs:
        prompt = language.text(rng.randint(15, 40))
        answers = [language.text(rng.randint(30, 110)) for _ in range(2)]
        kind = rng.choices((PLAIN, EXACT, NEAR, LEAK), (97.5, 1, 1, 0.5))[0]
        texts = [" ".join(part) for part in (prompt, *answers)]
        if kind == LEAK:
            question = rng.choice(questions)
            texts[0] += f" {question.upper().replace(' ', ',  ')}? " + " ".join(language.text(5))
        yield kind, made, texts[0], texts[1], texts[2]
        made += 1
        if kind == EXACT:
            yield kind, made - 1, texts[0].title().replace(" ", "  "), texts[1].upper(), f" {texts[2]}\n"
        elif kind == NEAR:
            near = [language.replaced(prompt, len(prompt) - 1), *(language.replaced(a, len(a) // 2) for a in answers)]
            yield kind, made - 1, *(" ".join(part) for part in near)
        made += kind in (EXACT, NEAR)


def make(folder: Path, pairs: int) -> None:
    """A workspace with so many judged pairs, and planted.jsonl beside it."""
    workspace = workspaces.create(folder)
    language = Language(0)
    questions = [" ".join(language.text(language.rng.randint(8, 25))).replace(".", "") for _ in range(QUESTIONS)]
    rows = [{"question": question, "answers": ["yes"]} for question in questions]
    (folder / "questions.jsonl").write_text("".join(canonical_json(row) + "\n" for row in rows))
    (folder / workspaces.SETTINGS_FILE).write_text('[evaluation]\nquestions = ["questions.jsonl"]\n')
    rng = random.Random(2)
    candidates: list[Candidate] = []
    judgements: list[Judgement] = []
    with Database(workspace.database) as database, (folder / "planted.jsonl").open("w") as planted:
        for kind, group, prompt, better, worse in planted_rows(pairs, questions):
            first = rng.random() < 0.5
            texts = (better, worse) if first else (worse, better)
            candidate = Candidate(prompt=user_message(prompt), responses=tuple(Response(text=text) for text in texts))
            candidates.append(candidate)
            judgements += votes(candidate, 0 if first else 1, kind, rng)
            if kind != PLAIN:
                planted.write(json.dumps([prompt, kind, group]) + "\n")
            if len(candidates) == 20_000:
                database.add("main", candidates, judgements)
                candidates, judgements = [], []
        database.add("main", candidates, judgements)


def votes(candidate: Candidate, better: int, kind: str, rng: random.Random) -> list[Judgement]:
    """A plain pair has three people (10%), two who differ (3%), or one; half of the others the judge. Planted: one."""
    voters: list[tuple[str, str, int, float]] = []
    many = rng.random() if kind == PLAIN else 1.0
    if many < 0.10:
        voters = [
            (name, "human", better if rng.random() < right else 1 - better, 1.0) for name, right in RATERS.items()
        ]
    elif many < 0.13:
        voters = [("ann", "human", better, 1.0), ("dan", "human", 1 - better, 1.0)]
    else:
        voters = [("ann", "human", better, 1.0)]
    if kind == PLAIN and not 0.10 <= many < 0.13 and rng.random() < 0.5:
        voters.append(("judge", "ai", better if rng.random() < JUDGE else 1 - better, round(rng.uniform(0.5, 1), 3)))
    return [
        Judgement(
            candidate_id=candidate.id,
            rater=Rater(kind=kind_of, name=name),
            source="benchmark",
            preferred=preferred,
            probability=probability,
            rewrite=f"Better: {candidate.responses[preferred].text}" if name == "ann" and many < 0.02 else None,
            created_at=NOW,
        )
        for name, kind_of, preferred, probability in voters
    ]


def timed_build(folder: Path) -> dict[str, Any]:
    """The build alone in this process."""
    load = os.getloadavg()[0]
    began = time.monotonic()
    build(Workspace(folder), "bench", options=OPTIONS, say=lambda line: print(line, file=sys.stderr))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss / 1024),
        "load_at_start": round(load, 1),
    }


def check(folder: Path) -> dict[str, Any]:
    """What the version has dropped of the planted rows, and what besides."""
    groups: dict[str, tuple[str, int]] = {}
    for line in (folder / "planted.jsonl").read_text().splitlines():
        prompt, kind, group = json.loads(line)
        groups[prompt] = (kind, group)
    dropped: Counter[tuple[str, int]] = Counter()
    wrong: Counter[str] = Counter()
    with (folder / "datasets" / "bench" / "v1" / "set_aside.jsonl").open() as lines:
        for line in lines:
            row = json.loads(line)
            place = groups.get(row["prompt"][-1]["content"], (PLAIN, 0))
            if row["reason"] in (EXACT, NEAR, LEAK):
                if place[0] == row["reason"]:
                    dropped[place] += 1
                else:
                    wrong[row["reason"]] += 1
    planted = Counter(kind for kind, _ in set(groups.values()))
    found = Counter(kind for (kind, _), count in dropped.items() if count == 1)
    manifest = json.loads((folder / "datasets" / "bench" / "v1" / "manifest.json").read_text())
    accuracies = {
        rater["rater"]: [rater["accuracy"], *rater["interval"]] for rater in manifest["aggregation"]["raters"]
    }
    return {
        "planted": {kind: {"n": planted[kind], "found": found[kind], "false": wrong[kind]} for kind in sorted(planted)},
        "steps": manifest["steps"],
        "accuracies": accuracies,
    }


def run(pairs: int, folder: Path) -> dict[str, Any]:
    """One size, each part in a process of its own."""
    found: dict[str, Any] = {"pairs": pairs, "date": time.strftime("%Y-%m-%d")}
    for part in ("make", "build", "check"):
        command = [sys.executable, __file__, "--part", part, "--folder", str(folder), str(pairs)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found |= json.loads(output or "{}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--part", choices=("make", "build", "check"))
    given = parser.parse_args()
    if given.part == "make":
        make(given.folder, given.pairs[0])
    elif given.part:
        print(json.dumps({"build": timed_build, "check": check}[given.part](given.folder)))
    else:
        for pairs in given.pairs:
            with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
                found = run(pairs, Path(temporary) / "workspace")
            report(found)
            keep(found)


def keep(found: dict[str, Any]) -> None:
    """Put one size's figures in place of earlier ones."""
    earlier = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    kept = {
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "packages": {name: version(name) for name in PACKAGES},
        "options": asdict(OPTIONS),
        "runs": sorted([r for r in earlier if r["pairs"] != found["pairs"]] + [found], key=lambda r: r["pairs"]),
    }
    RESULTS.write_text(json.dumps(kept, indent=2) + "\n")


def report(found: dict[str, Any]) -> None:
    """The table of one size."""
    load = f"load {found['load_at_start']} before it began"
    print(
        f"{found['pairs']:,} pairs: {found['seconds']} s ({found['cpu_seconds']} s of CPU, {load}), "
        f"peak memory {found['peak_mib']} MiB"
    )
    for kind, counts in found["planted"].items():
        print(
            f"  {kind:<16} planted {counts['n']:>6,}  found {counts['found']:>6,}  dropped besides {counts['false']:,}"
        )
    for rater, (accuracy, low, high) in found["accuracies"].items():
        print(f"  {rater:<16} accuracy {accuracy:.3f} ({low:.3f} to {high:.3f})")
    for step, pairs, demonstrations in found["steps"]:
        print(f"  {step:<20} {pairs:>10,} {demonstrations:>10,}")


if __name__ == "__main__":
    main()
