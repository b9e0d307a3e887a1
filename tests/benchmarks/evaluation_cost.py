"""What it costs to evaluate base and tuned together: python tests/benchmarks/evaluation_cost.py"""

import argparse
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from evaluation.harness import Side, run_task
from evaluation.task_sources import TaskSource, named_source

RESULTS = Path(__file__).parent / "results" / "evaluation_cost.json"
DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = {
    "truthfulqa": "truthfulqa/TruthfulQA.csv",
    "halueval": "halueval/qa_pairs.jsonl",
    "nq_open": "nq-open/dev.jsonl",
}
# Items of each task, so that all of it takes a few minutes on two cores.
TASKS = {"truthfulqa_mc1": 24, "truthfulqa_mc2": 24, "halueval_preference": 48, "nq_open": 48}
BATCH = 32


def adapted(folder: Path) -> Any:
    """The model with an adapter that changes its answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.02)
    return model.eval()


def sides(folder: Path) -> tuple[Side, Side]:
    from transformers import AutoTokenizer

    model, tokenizer = adapted(folder), AutoTokenizer.from_pretrained(folder)
    return Side("base", model, tokenizer, model.disable_adapter), Side("tuned", model, tokenizer, nullcontext)


def ours(pair: tuple[Side, ...], task: TaskSource, limit: int) -> list[dict[str, float]]:
    found = []
    for side in pair:
        answers = run_task(side, task, limit, BATCH)
        found.append({name: sum(answer.metrics[name] for answer in answers) / limit for name in task.metrics})
    return found


def theirs(folder: Path, adapter: bool, task: TaskSource, limit: int) -> dict[str, float]:
    """A run of lm-eval's own on one model."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    base, _ = sides(folder)
    model = HFLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=BATCH, truncation=True)
    with nullcontext() if adapter else base.active():
        results = lm_eval.simple_evaluate(
            model=model,
            tasks=[task.config],
            task_manager=TaskManager(include_defaults=False),
            limit=limit,
            bootstrap_iters=0,
        )
    return {
        name if len(task.filters) > 1 else name.split(",")[0]: value
        for name, value in results["results"][task.name].items()
        if isinstance(value, float) and "stderr" not in name
    }


def seconds(work: Callable[..., Any], *arguments: object) -> tuple[float, Any]:
    """Of the process's own time on a core: that of a machine that others use too says little."""
    start = time.process_time()
    found = work(*arguments)
    return time.process_time() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DATA / "models" / "stories260k")
    parser.add_argument("--rounds", type=int, default=1, help="of which the median counts")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    kept = []
    columns = ("one alone", "together", "lm-eval, one", "lm-eval, two", "to ours alone", "to lm-eval's one", "apart")
    print(f"{'CPU seconds':<22}" + "".join(f"{column:>18}" for column in columns))
    with tempfile.TemporaryDirectory() as made:
        for name, limit in TASKS.items():
            data = {key: str(DATA / file) for key, file in FILES.items()}
            task = named_source(name, data, Path(made), Path(made))
            pair = sides(options.model)
            ours(pair[1:], task, 2)
            rounds = []
            for _ in range(options.rounds):
                alone, _ = seconds(ours, pair[1:], task, limit)
                together, figures = seconds(ours, pair, task, limit)
                one, of_tuned = seconds(theirs, options.model, True, task, limit)
                other, of_base = seconds(theirs, options.model, False, task, limit)
                rounds.append((together / alone, alone, together, one, one + other))
            apart = max(
                abs(mine[metric] - its[metric])
                for mine, its in zip(figures, (of_base, of_tuned), strict=True)
                for metric in its
            )
            ratio, alone, together, one, two = sorted(rounds)[len(rounds) // 2]
            print(
                f"{name + f', n = {limit}':<22}"
                + "".join(f"{value:>18.2f}" for value in (alone, together, one, two, ratio, together / one))
                + f"{apart:>18.1g}"
            )
            kept.append(
                {"task": name, "n": limit, "alone": alone, "together": together, "lm_eval_one": one}
                | {"lm_eval_two": two, "to_ours_alone": ratio, "to_lm_eval_one": together / one, "apart": apart}
            )
    totals = {key: sum(row[key] for row in kept) for key in ("alone", "together", "lm_eval_one", "lm_eval_two")}
    print(
        f"all: together {totals['together']:.1f} s, {totals['together'] / totals['alone']:.2f} times one alone, "
        f"{totals['together'] / totals['lm_eval_one']:.2f} times lm-eval on one, "
        f"{totals['together'] / totals['lm_eval_two']:.2f} times two runs of lm-eval"
    )
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("lm-eval", "torch", "transformers", "peft")},
        "model": options.model.name,
        "tasks": kept,
        "all": totals,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
