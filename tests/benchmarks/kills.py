"""kill -9 at random moments of each method's runs: python tests/benchmarks/kills.py [--times 20] [METHOD ...]

What goes on from there must end with the figures and the weights of a run that nobody killed.
"""

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from feedback import workspace as workspaces
from feedback.files import hash_folder
from feedback.workspace import Workspace
from tests.conftest import make_small_dataset, make_tiny_model
from tests.training import processes
from tests.training.conftest import make_tiny_bert
from tests.training.test_killed_runs import CASES, keys_of, logged, quiet
from training.launch import resume, train
from training.runs import MANIFEST, Run

RESULTS = Path(__file__).parent / "results" / "kills.json"


def kill(workspace: Workspace, case: str, tiny: Path, bert: Path, times: int, rng: random.Random) -> dict[str, Any]:
    """How many of a method's killed runs ended as one that was not killed, and where they went on."""
    method, keys = keys_of(workspace, case, tiny, bert)
    whole = train(workspace, method, keys, quiet)
    number = int(whole.id.rpartition("-")[2])
    seconds: float | None = None
    equal, half_written, last = 0, 0, Counter[str]()
    while sum(last.values()) < times:
        number += 1
        run = Run(workspace.runs / f"{method}-{number}")
        process = processes.in_process(processes.train, workspace.root, method, keys)
        processes.until((run.folder / MANIFEST).exists, process)
        began = time.monotonic()
        if seconds is None:
            # The first is let live, since how long it takes is not known.
            process.join()
            seconds = time.monotonic() - began
            continue
        process.join(rng.uniform(0, seconds))
        process.kill()
        process.join()
        if run.state == "finished":
            continue
        last[run.last_whole] += 1
        half_written += any(run.folder.rglob("*.part"))
        resume(workspace, run.id, quiet)
        same = (run.state, logged(run)) == ("finished", logged(whole))
        equal += same and hash_folder(run.weights) == hash_folder(whole.weights)
    return {"kills": times, "equal": equal, "half_written": half_written, "went_on_from": dict(sorted(last.items()))}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("methods", nargs="*", choices=[*CASES, []], metavar="METHOD")
    parser.add_argument("--times", type=int, default=20)
    chosen = parser.parse_args()
    found = {}
    print(f"{'method':<11} {'kills':>5} {'equal':>5} {'half-written':>12}  went on from")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VERITUNE_QUEUE"] = str(Path(folder) / "queue")
        tiny, bert = make_tiny_model(Path(folder) / "tiny"), make_tiny_bert(Path(folder) / "bert")
        for case in chosen.methods or CASES:
            workspace = workspaces.create(Path(folder) / case)
            make_small_dataset(workspace)
            one = found[case] = kill(workspace, case, tiny, bert, chosen.times, random.Random(case))
            places = ", ".join(f"{place} {count}" for place, count in one["went_on_from"].items())
            print(f"{case:<11} {one['kills']:>5} {one['equal']:>5} {one['half_written']:>12}  {places}", flush=True)
    before = json.loads(RESULTS.read_text())["methods"] if RESULTS.exists() else {}
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        "methods": before | found,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(any(one["equal"] < one["kills"] for one in found.values()))


if __name__ == "__main__":
    main()
