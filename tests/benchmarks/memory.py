"""The memory estimate against measured peaks, and PPO's beside SFT's: python tests/benchmarks/memory.py"""

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
CASES = [
    ("sft",),
    ("sft", "quantize=nf4"),
    ("sft", "gradient_checkpointing=true"),
    ("sft", "quantize=nf4", "gradient_checkpointing=true"),
    ("sft", "lora.r=256"),
    ("sft", "lora.r=256", "optimizer=adamw-8bit"),
    ("sft", "tuning=full"),
    ("sft", "tuning=full", "optimizer=adamw-8bit"),
    ("dpo",),
    ("dpo", "quantize=nf4"),
    ("reward",),
    # Four roles, whose answers make rows as long as SFT's.
    ("ppo", "reward=reward-1", "max_new_tokens=240", "rollouts=8", "ppo_epochs=1"),
    ("ppo", "reward=reward-1", "max_new_tokens=240", "rollouts=8", "ppo_epochs=1", "gradient_checkpointing=true"),
]


def main() -> None:
    kept = []
    print(f"{'run':<55} {'estimated':>10} {'measured':>10} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        tiny = make_tiny_model(Path(folder) / "tiny")
        place = peak.make(Path(folder), tiny)
        peak.add_rewards(*place, tiny)
        for method, *keys in CASES:
            found = peak.measure(*place, tiny, method, *keys)
            ratio = found["peak"] / found["estimated"]
            name = " ".join((method, *keys))
            print(f"{name:<55} {found['estimated'] / 2**20:>6.0f} MiB {found['peak'] / 2**20:>6.0f} MiB {ratio:>6.2f}")
            kept.append({"run": name, **found, "ratio": ratio})
    peaks = {one["run"]: one["peak"] for one in kept}
    against_sft = {}
    for more in ("", " gradient_checkpointing=true"):
        against_sft[f"ppo{more}"] = peaks[" ".join(CASES[-2]) + more] / peaks[f"sft{more}"]
        print(f"PPO's peak{more}: {against_sft[f'ppo{more}']:.2f} of SFT's on the same model and batch")
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft", "bitsandbytes")},
        "runs": kept,
        "of_sft": against_sft,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
