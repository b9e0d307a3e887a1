"""The demo on three seeds: what SFT and DPO do to the pocket model, how long it takes, and the memory it needs."""

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "demo_seeds.json"
ROWS = (
    ("people", "accuracy"),
    ("people", "hallucination_rate"),
    ("people", "score@0.75"),
    ("unstated", "hallucination_rate"),
)
PACKAGES = ("torch", "transformers", "trl", "peft", "lm-eval")


def run(seed: int, folder: Path) -> dict[str, Any]:
    """One demo in a process of its own."""
    began = time.monotonic()
    command = [sys.executable, "-m", "ui", "demo", "--no-serve", "--seed", str(seed), "--folder", str(folder)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
    seconds = round(time.monotonic() - began)
    # The largest of the children so far: with one at a time, this one or an earlier.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("reports/*/results.json"))]
    figures = [
        {key: c[key] for key in ("task", "metric", "n", "base", "tuned", "difference")}
        | {"stage": report["tuned"].split("-")[0], "ci": [c["ci_low"], c["ci_high"]], "p_holm": c["p_holm"]}
        for report in reports
        for task, metric in ROWS
        for c in report["comparisons"]
        if (c["task"], c["metric"]) == (task, metric)
    ]
    return {"seed": seed, "seconds": seconds, "peak_bytes": peak, "figures": figures}


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        runs = [run(seed, Path(temporary) / f"seed-{seed}") for seed in (0, 1, 2)]
    heads = ("seed", "stage", "task: metric", "n", "base", "tuned", "95% interval of the difference")
    line = "{:>4} {:>5} {:<30} {:>4} {:>7} {:>7} {:>32}"
    print(line.format(*heads))
    for each in runs:
        for f in each["figures"]:
            interval = f"{f['ci'][0]:+.3f} to {f['ci'][1]:+.3f}"
            figures = (f"{f['base']:.3f}", f"{f['tuned']:.3f}", interval)
            print(line.format(each["seed"], f["stage"], f"{f['task']}: {f['metric']}", f["n"], *figures))
        print(f"{each['seed']:>4} took {each['seconds']} s, peak memory {each['peak_bytes'] / 2**30:.2f} GiB")
    kept = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{platform.machine()}, {_cpu()}",
        "packages": {name: version(name) for name in PACKAGES},
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(kept, indent=2) + "\n")


def _cpu() -> str:
    import torch

    return f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
