"""Real runs on a tiny model: what changes, what must not, and that a killed run goes on as if nothing had happened."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from feedback.errors import UserError
from feedback.files import hash_folder
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import adapters, models, runs
from training.launch import resume, train
from training.recipe_base import Head, Lora
from training.runs import Run


def quiet(line: str) -> None:
    pass


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.weights / "adapter_model.safetensors")


@pytest.mark.parametrize("method", ["sft", "reward", "dpo"])
def test_one_step_changes_every_adapter_weight_and_no_bit_of_the_base(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    add_adapter = adapters.add_adapter

    def remember(model: Any, lora: Lora, head: Head) -> Any:
        # A new head is no part of the base.
        seen["base"] = {name: p.detach().clone() for name, p in model.named_parameters() if "score" not in name}
        adapted = seen["model"] = add_adapter(model, lora, head)
        seen["before"] = {n: p.detach().clone() for n, p in adapted.named_parameters() if p.requires_grad}
        return adapted

    monkeypatch.setattr(adapters, "add_adapter", remember)
    train(workspace, method, ["dataset=sums", f"model={tiny_model}", "max_steps=1", "learning_rate=1e-3"], quiet)
    after = dict(seen["model"].named_parameters())
    assert len(seen["before"]) == 2 * 7 * 2 + (method == "reward")
    unchanged = [name for name, value in seen["before"].items() if torch.equal(value, after[name])]
    assert unchanged == []
    base_after = {n.removeprefix("base_model.model.").replace("base_layer.", ""): p for n, p in after.items()}
    for name, value in seen["base"].items():
        assert torch.equal(value, base_after[name]), name


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    keys = ["dataset=sums", f"model={tiny_model}", "max_steps=3"]
    first, second, third = (train(workspace, "sft", [*keys, f"seed={seed}"], quiet) for seed in (1, 1, 2))
    same = "adapter_model.safetensors"
    assert hash_folder(first.weights)[same] == hash_folder(second.weights)[same] != hash_folder(third.weights)[same]


def test_dpo_loss_equals_the_papers_formula_against_the_parents_adapter(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    """Equation 7 of arXiv 2305.18290 by hand, before and after one step of gradient descent on one batch."""
    from training.batches import pair_rows

    common = ["dataset=sums", "max_steps=2", "batch_size=64", "log_every=1", "learning_rate=5e-3", "warmup=0"]
    parent = train(workspace, "sft", [*common, f"model={tiny_model}"], quiet)
    run = train(workspace, "dpo", [*common, f"parent={parent.id}", "beta=0.3", "sft_weight=0.5"], quiet)
    tokenizer = models.load_tokenizer(str(run.weights))
    rows, _ = pair_rows(tokenizer, list(small_dataset.pairs("train")), 256)

    @torch.no_grad()
    def losses(policy: Any, reference: Any) -> tuple[float, float]:
        margins, chosen_tokens, chosen_logp = [], 0, 0.0
        for row in rows:
            ratio = {}
            for kind in ("chosen", "rejected"):
                answer = row[f"{kind}_ids"]
                ids = torch.tensor([row["prompt_ids"] + answer])
                logps = []
                for model in (policy, reference):
                    logits = model(input_ids=ids).logits[0, len(row["prompt_ids"]) - 1 : -1].log_softmax(-1)
                    logps.append(logits.gather(-1, torch.tensor(answer)[:, None]).sum().item())
                ratio[kind] = logps[0] - logps[1]
                if kind == "chosen":
                    chosen_tokens, chosen_logp = chosen_tokens + len(answer), chosen_logp + logps[0]
            margins.append(0.3 * (ratio["chosen"] - ratio["rejected"]))
        dpo = -torch.nn.functional.logsigmoid(torch.tensor(margins)).mean().item()
        return dpo, -chosen_logp / chosen_tokens

    def adapted(folder: Path) -> Any:
        return adapters.load_adapter(models.load_base(str(tiny_model)), folder).eval()

    logged = [line["loss"] for line in run.metrics() if "loss" in line]
    reference = adapted(parent.weights)
    dpo, sft = losses(reference, reference)
    assert dpo == pytest.approx(0.693147, abs=1e-5)
    assert logged[0] == pytest.approx(dpo + 0.5 * sft, abs=1e-4)
    # The second line was logged on the weights that a run of one step leaves behind.
    keys = [key for key in common if key != "max_steps=2"] + ["max_steps=1", f"parent={parent.id}"]
    one_step = train(workspace, "dpo", [*keys, "beta=0.3", "sft_weight=0.5"], quiet)
    dpo, sft = losses(adapted(one_step.weights), reference)
    assert dpo < 0.69
    assert logged[1] == pytest.approx(dpo + 0.5 * sft, abs=1e-4)


def test_a_loss_that_is_no_number_stops_the_run(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    from training.trainer import TrainingError

    keys = [
        "dataset=sums",
        f"model={tiny_model}",
        "epochs=20",
        "learning_rate=1e30",
        "log_every=1",
        "checkpoint_every=1",
    ]
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf).*try a lower learning_rate than 1e\+30"):
        train(workspace, "sft", keys, quiet)
    (run,) = runs.list_runs(workspace)
    assert run.state == "failed"
    assert "loss became" in run.manifest["error"]
    # What the first step left is no sound checkpoint.
    assert run.checkpoints() == []
    assert run.manifest["error"].endswith("no checkpoint was saved before it began")
    assert not run.weights.exists()


def test_status_has_the_promised_keys(workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path) -> None:
    parent = train(workspace, "sft", ["dataset=sums", f"model={tiny_model}", "max_steps=2"], quiet)
    run = train(workspace, "dpo", ["dataset=sums@v1", f"parent={parent.id}", "max_steps=2", "log_every=1"], quiet)
    status = run.status()
    assert set(status) >= {"run_id", "state", "method", "step", "total_steps", "metrics", "dataset", "parent"}
    assert (status["run_id"], status["state"], status["method"]) == ("dpo-1", "finished", "dpo")
    assert (status["step"], status["total_steps"]) == (2, 2)
    assert (status["dataset"], status["parent"]) == ("sums@v1", "sft-1")
    assert status["metrics"]["rewards/accuracies"] >= 0


def test_the_number_of_steps_is_known_before_the_first(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    keys = ["dataset=sums", f"model={tiny_model}", "batch_size=7", "gradient_accumulation=2", "epochs=1.5"]
    run = train(workspace, "sft", keys, quiet)
    assert run.status()["step"] == run.status()["total_steps"] > 3


def test_the_first_row_is_shown_with_its_loss_mask(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    lines: list[str] = []
    train(workspace, "sft", ["dataset=sums", f"model={tiny_model}", "max_steps=1"], lines.append)
    assert any(re.search(r"<\|assistant\|>⟦\d+<\|end\|>⟧", line) for line in lines)
    assert any("step 1/1, loss" in line for line in lines)


def test_a_checkpoint_of_changed_data_is_not_resumed(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    run = train(workspace, "sft", ["dataset=sums", f"model={tiny_model}", "max_steps=1"], quiet)
    run.update(state="stopped", dataset={"id": "sums@v1", "fingerprint": "0" * 64})
    with pytest.raises(UserError, match="its dataset is no longer what it was trained on"):
        resume(workspace, run.id, quiet)


def test_metrics_are_lines_of_json(workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path) -> None:
    run = train(workspace, "sft", ["dataset=sums", f"model={tiny_model}", "max_steps=4", "log_every=1"], quiet)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    assert run.status()["step"] == 4


def test_a_run_named_by_relative_paths_is_found_from_another_folder(
    workspace: Workspace,
    small_dataset: DatasetVersion,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "model").symlink_to(tiny_model)
    template = tmp_path / "mine.jinja"
    template.write_text((tiny_model / "chat_template.jinja").read_text())
    keys = ["dataset=sums", "model=model", "chat_template=mine.jinja", "max_steps=1"]
    run = train(workspace, "sft", keys, quiet)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    child = train(workspace, "dpo", ["dataset=sums", f"parent={run.id}", "max_steps=1"], quiet)
    assert child.recipe.model == str(tiny_model.resolve())
    assert child.recipe.chat_template == str(template.resolve())
    assert child.recipe.lora == run.recipe.lora
    with pytest.raises(UserError) as caught:
        train(workspace, "dpo", ["dataset=sums", f"parent={run.id}", "lora.r=3", f"model={elsewhere}"], quiet)
    assert any("lora: differs from that of its parent sft-1" in line for line in caught.value.lines)
    assert any("is not that of its parent sft-1; leave it out" in line for line in caught.value.lines)


def test_sft_imitates_demonstrations_chosen_answers_or_both(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    pairs, demonstrations = len(small_dataset.pairs("train")), len(small_dataset.demonstrations("train"))
    for examples, rows in (("demonstrations", demonstrations), ("chosen", pairs), ("both", pairs + demonstrations)):
        keys = ["dataset=sums", f"model={tiny_model}", "max_steps=1", f"examples={examples}"]
        assert train(workspace, "sft", keys, quiet).manifest["preflight"]["rows"] == rows


def test_data_without_a_row_for_the_method_is_refused(workspace: Workspace, tiny_model: Path) -> None:
    from feedback.curation.build import build
    from feedback.database import Database
    from feedback.schema import Candidate, Judgement, Rater, Response, user_message

    candidate = Candidate(prompt=user_message("?"), responses=(Response(text="a"), Response(text="b")))
    rater = Rater(kind="human", name="ann")
    judgement = Judgement(candidate_id=candidate.id, rater=rater, source="test", preferred=0)
    with Database(workspace.database) as database:
        database.add("main", [candidate], [judgement])
    build(workspace, "pairs", fractions=(1, 0, 0))
    with pytest.raises(UserError, match="no row for sft; set examples=chosen to imitate its pairs"):
        train(workspace, "sft", ["dataset=pairs", f"model={tiny_model}"], quiet)
    assert runs.list_runs(workspace) == []
