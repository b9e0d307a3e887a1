"""Measures a run's peak memory in a process of its own.

python -m tests.training.peak WORKSPACE TINY METHOD KEY=VALUE...

TINY is a small model with the same tokenizer: what libraries take once, at their first use, belongs to no run.
"""

import ctypes
import gc
import json
import re
import sys
from pathlib import Path


def resident(kind: str) -> int:
    """Bytes that this process has (VmRSS), or has had at most since `forget_peak` (VmHWM)."""
    match = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    from feedback import workspace
    from training.launch import train

    place, tiny, method, *keys = sys.argv[1:]
    here = workspace.find(Path(place))
    train(here, method, [*keys, f"model={tiny}", "max_steps=1"], lambda line: None)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    forget_peak()
    before = resident("VmRSS")
    run = train(here, method, [*keys, "max_steps=2"], lambda line: None)
    print(json.dumps({"peak": resident("VmHWM") - before, "estimated": run.manifest["preflight"]["memory_needed"]}))


if __name__ == "__main__":
    main()
