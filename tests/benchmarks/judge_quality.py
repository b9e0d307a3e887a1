"""A judge against people on the gold pairs of LLMBar and PandaLM; by default a judge far too small for it."""

import argparse
import json
import platform
import shutil
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from feedback import workspace as workspaces
from feedback.constitution.comparison import Judging
from feedback.constitution.gold import Quality, Share, evaluate, read_gold
from feedback.constitution.judge import Choosing
from feedback.constitution.principles import SHIPPED, load
from ui.cli.constitution import generator

RESULTS = Path(__file__).parent / "results" / "judge_quality.json"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
GOLD = {"llmbar": SHARED / "llmbar" / "pairs.jsonl", "pandalm": SHARED / "pandalm" / "human_pairs.jsonl"}
CHAT_TEMPLATE = "{% for m in messages %}{{ m['content'] + '\n\n' }}{% endfor %}"
# It was trained on texts of 512 tokens; the questions are longer, and an answer to all of them is wanted.
CONTEXT = 16_384


def stories(folder: Path) -> str:
    """The pretrained Llama of 260,000 weights, as a model that can be asked anything."""
    shutil.copytree(SHARED / "models" / "stories260k", folder)
    for name, added in (
        ("config.json", {"max_position_embeddings": CONTEXT}),
        ("tokenizer_config.json", {"chat_template": "<s>" + CHAT_TEMPLATE, "model_max_length": CONTEXT}),
    ):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | added))
    return str(folder)


def shown(share: Share | None) -> str:
    return f"{share.share:.3f} ({share.low:.3f}-{share.high:.3f}, n={share.n})" if share else "-"


def row(name: str, quality: Quality) -> str:
    shares = map(shown, (quality.accuracy, quality.as_given, quality.swapped, quality.flips, quality.longer))
    return (
        f"{name:<8} {quality.slice:<28} " + " ".join(f"{share:<26}" for share in shares) + f" {quality.unanswered:>3}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a model folder, or endpoint:NAME; default: stories260k")
    parser.add_argument("--limit", type=int, default=100, help="pairs of each file")
    arguments = parser.parse_args()
    kept: list[dict[str, Any]] = []
    heads = ("accuracy", "as given", "sides swapped", "flip rate", "longer is better")
    print(f"{'gold':<8} {'pairs':<28} " + " ".join(f"{head:<26}" for head in heads) + " unanswered")
    with tempfile.TemporaryDirectory() as temporary:
        workspace = workspaces.create(Path(temporary) / "workspace")
        model = generator(workspace, arguments.model or stories(Path(temporary) / "stories260k"))
        for name, file in GOLD.items():
            began = time.monotonic()
            gold = read_gold(f"{name}:{file}").sample(arguments.limit)
            found = evaluate(model, load(SHIPPED), gold, Choosing(principle="helpful"), Judging(), print)
            for quality in found.qualities:
                print(row(name, quality))
            kept.append(asdict(found) | {"gold": name, "seconds": round(time.monotonic() - began)})
    results = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{platform.machine()}, {platform.processor() or 'CPU'}",
        "packages": {name: version(name) for name in ("torch", "transformers")},
        "sample": arguments.limit,
        "evaluations": kept,
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
