"""A run's peak memory beside its estimate, measured in a process of its own."""

import ctypes
import gc
import json
import random
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS, LENGTH = 60, 256


def make(folder: Path, tiny: Path) -> tuple[Path, Path]:
    """A workspace whose rows are nearly as long as a row may be, and a Llama of 29 million weights to train on them."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from feedback import workspace
    from feedback.curation.build import build
    from feedback.database import Database
    from feedback.schema import Candidate, Demonstration, Judgement, Rater, Response, user_message

    rng = random.Random(0)
    candidates, judgements, demonstrations = [], [], []
    for number in range(ROWS):
        texts = ["".join(rng.choices("abcdefghij ", k=LENGTH - 20)) for _ in range(2)]
        candidate = Candidate(prompt=user_message(f"q{number}"), responses=tuple(Response(text=text) for text in texts))
        rater = Rater(kind="script", name="peak")
        candidates.append(candidate)
        judgements.append(Judgement(candidate_id=candidate.id, rater=rater, source="test", preferred=1))
        demonstrations.append(Demonstration(prompt=candidate.prompt, completion=texts[0], provenance="test"))
    here = workspace.create(folder / "workspace")
    with Database(here.database) as database:
        database.add("long", candidates, judgements, demonstrations)
    build(here, "long")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    config = LlamaConfig(
        vocab_size=8000,
        hidden_size=512,
        intermediate_size=1344,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id,
    )
    model = folder / "model"
    tokenizer.save_pretrained(str(model))
    LlamaForCausalLM(config).save_pretrained(str(model))
    return here.root, model


def add_rewards(workspace: Path, *models: Path) -> None:
    """A reward run of one step on each model: what PPO is measured with, and what it warms up with."""
    from feedback.workspace import Workspace
    from training.launch import train

    for model in models:
        train(Workspace(workspace), "reward", ["dataset=long", f"model={model}", "max_steps=1"], lambda line: None)


def measure(workspace: Path, model: Path, tiny: Path, method: str, *keys: str) -> dict[str, int]:
    """Bytes at the peak of a run of two steps and as they were estimated."""
    common = ["dataset=long", f"max_length={LENGTH}", "batch_size=4", f"model={model}", *keys]
    command = [sys.executable, "-m", "tests.training.peak", str(workspace), str(tiny), method, *common]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def _resident(kind: str) -> int:
    """Bytes that this process has (VmRSS), or has had at most since the peak was forgotten (VmHWM)."""
    match = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def main() -> None:
    from feedback import workspace
    from training.launch import train

    place, tiny, method, *keys = sys.argv[1:]
    here = workspace.find(Path(place))
    # What libraries take once, at their first use, belongs to no run.
    small = [f"model={tiny}", "max_steps=1", *(["reward=reward-2"] if method == "ppo" else [])]
    train(here, method, [*keys, *small], lambda line: None)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    run = train(here, method, [*keys, "max_steps=2"], lambda line: None)
    print(json.dumps({"peak": _resident("VmHWM") - before, "estimated": run.manifest["preflight"]["memory_needed"]}))


if __name__ == "__main__":
    main()
