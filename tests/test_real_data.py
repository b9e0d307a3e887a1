"""The loop on real feedback and a real pretrained model: import, build, train, evaluate, chat side by side."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.generation import Sampling
from feedback.workspace import Workspace
from ui import votes
from ui.backbone import Backbone
from ui.pages.compare import Current, converse


def test_from_human_pairs_to_a_chat_with_base_and_tuned(
    veritune: Callable[..., Any], workspace: Workspace, shared_data: Path
) -> None:
    def run(*arguments: str) -> Any:
        return veritune("--workspace", workspace.root, *arguments)

    pandalm = shared_data / "pandalm" / "human_pairs.jsonl"
    imported = run("feedback", "import", "pandalm", str(pandalm), "--into", "panda", "--json")
    raw = [json.loads(line) for line in pandalm.read_text().splitlines()]
    assert imported["rows"] == len(raw)
    assert imported["added"]["judgements"] == 3 * len(raw) - 3 * imported["refused"]
    hh_rlhf = shared_data / "hh-rlhf" / "harmless.jsonl"
    assert run("feedback", "import", "hh-rlhf", str(hh_rlhf), "--into", "hh", "--json")["added"]["judgements"] > 1200

    panda = run("data", "build", "panda", "--from", "panda", "--json")
    assert panda["pairs"] > 500
    assert panda["dropped"]["tie"] > 0
    assert run("data", "build", "hh", "--from", "hh", "--json")["pairs"] > 1200

    model = shared_data / "models" / "stories260k"
    refused = run("train", "dpo", "dataset=panda", f"model={model}")
    assert refused.status == 2
    assert [line for line in refused.lines if "no chat template" in line]
    assert [line for line in refused.lines if "no pad token" in line and "set pad_token=<unk>" in line]

    keys = ["dataset=panda", f"model={model}", "chat_template=plain", "pad_token=<unk>"]
    trained = run("train", "dpo", *keys, "max_steps=3", "batch_size=4", "learning_rate=1e-3", "--json")
    assert trained == {"run_id": "dpo-1", "state": "finished"}
    status = run("train", "status", "dpo-1", "--json")
    assert (status["step"], status["dataset"]) == (3, "panda@v1")

    report = run("eval", "dpo-1", "--limit", "12", "--json")
    (accuracy,) = (c for c in report["comparisons"] if c["metric"] == "acc")
    assert accuracy["n"] == 12
    assert 0 <= accuracy["p_value"] <= 1
    assert (workspace.reports / report["report_id"] / "report.html").is_file()

    latest = Current(blind=True)
    asked = converse(workspace, Backbone(), latest, "dpo-1", "Once upon a time", "", Sampling(max_new_tokens=20))
    steps = list(asked)
    assert len(steps) > 10
    assert all(answer.split() for answer in steps[-1])

    assert latest.shown is not None
    assert [response.model for response in latest.shown.candidate.responses] == ["stories260k", "dpo-1"]
    votes.record(workspace, latest.shown, "A", rationale="", rewrite="")
    voted = run("data", "build", "panda", "--from", "panda", "--from", "compare", "--json")
    assert voted["version"] == 2
    assert voted["pairs"] == panda["pairs"] + (not latest.shown.identical)
