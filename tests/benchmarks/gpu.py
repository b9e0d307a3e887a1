"""Run the tests that need an NVIDIA GPU and keep what came of it: python tests/benchmarks/gpu.py"""

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "gpu.json"
ROOT = Path(__file__).parents[2]


def main() -> None:
    import torch

    if not torch.cuda.is_available():
        sys.exit("no NVIDIA GPU that torch can use: nothing was run, and no result was touched")
    with tempfile.TemporaryDirectory() as folder:
        outcome = Path(folder) / "outcome.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests", f"--junit-xml={outcome}"]
        ended = subprocess.run(command, cwd=ROOT, check=False)
        found = ElementTree.parse(outcome).iter("testcase")
        cases = [(case.get("name"), [part.tag for part in case]) for case in found]
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft", "bitsandbytes")},
        "tests": {name: (tags or ["passed"])[0] for name, tags in cases},
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
