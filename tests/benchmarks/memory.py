"""The memory estimate against measured peaks, and PPO's beside SFT's: python tests/benchmarks/memory.py [NUMBER ...]"""

import argparse
import json
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.conftest import make_tiny_model
from tests.training import peak

RESULTS = Path(__file__).parent / "results" / "memory.json"
# Four roles, whose answers make rows as long as SFT's.
PPO = ("ppo", "reward=reward-1", "max_new_tokens=240", "rollouts=32", "ppo_epochs=1")
CHECKPOINTING = "gradient_checkpointing=true"
CASES = [
    ("sft",),
    PPO,
    ("sft", CHECKPOINTING),
    (*PPO, CHECKPOINTING),
    ("sft", "quantize=nf4"),
    ("sft", "quantize=nf4", CHECKPOINTING),
    ("sft", "lora.r=256"),
    ("sft", "lora.r=256", "optimizer=adamw-8bit"),
    ("sft", "tuning=full"),
    ("sft", "tuning=full", "optimizer=adamw-8bit"),
    ("dpo",),
    ("dpo", "quantize=nf4"),
    ("reward",),
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("numbers", nargs="*", type=int, help=f"which, of 0 to {len(CASES) - 1}; the others stay")
    chosen = parser.parse_args().numbers or range(len(CASES))
    kept = {one["run"]: one for one in json.loads(RESULTS.read_text())["runs"]} if RESULTS.exists() else {}
    print(f"{'run':<95} {'estimated':>10} {'measured':>10} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        tiny = make_tiny_model(Path(folder) / "tiny")
        workspace, model = peak.make(Path(folder), tiny)
        peak.add_rewards(workspace, model, tiny)
        for number in chosen:
            method, *keys = CASES[number]
            found = peak.measure(workspace, model, tiny, method, *keys)
            ratio = found["peak"] / found["estimated"]
            name = " ".join(CASES[number])
            needed, taken = found["estimated"] / 2**20, found["peak"] / 2**20
            print(f"{name:<95} {needed:>6.0f} MiB {taken:>6.0f} MiB {ratio:>6.2f}", flush=True)
            kept[name] = {"run": name, **found, "ratio": ratio}
    for sft, ppo in (("sft", " ".join(PPO)), (f"sft {CHECKPOINTING}", " ".join((*PPO, CHECKPOINTING)))):
        if sft in kept and ppo in kept:
            print(f"{ppo.replace(' '.join(PPO), 'ppo')}: {kept[ppo]['peak'] / kept[sft]['peak']:.2f} of {sft}'s peak")
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft", "bitsandbytes")},
        "runs": list(kept.values()),
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
