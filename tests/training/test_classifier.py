"""Classifiers: encoders and decoders, all weights or an adapter, trained, saved, gone on from and put to work."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from evaluation.lineage import trace
from feedback.errors import UserError
from feedback.files import hash_file, hash_folder
from feedback.schema import user_message
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import adapters, models
from training.classifier import encode_example, encode_rows
from training.labelled import Example
from training.labels import load_labeller
from training.launch import train
from training.runs import Run


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers that are true where they hold a z, whatever their length."""
    path = tmp_path_factory.mktemp("labels") / "spoken.jsonl"
    rows = []
    for n in range(240):
        letters = "abcdefgh"[: 3 + n % 5]
        truth = n % 2 == 0
        answer = letters + ("zzz" if truth else "yyy")
        rows.append({"question": f"what is {n}?", "answer": answer, "label": "true" if truth else "false"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def figures(run: Run) -> dict[str, float]:
    return [line for line in run.metrics() if "eval_accuracy" in line][-1]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_an_encoder_learns_labels_from_a_file(workspace: Workspace, tiny_bert: Path, spoken: Path, tuning: str) -> None:
    before = hash_folder(tiny_bert)
    keys = [f"dataset={spoken}", f"model={tiny_bert}", f"tuning={tuning}", "learning_rate=5e-3", "epochs=4"]
    said: list[str] = []
    run = train(workspace, "classifier", keys, said.append)
    assert hash_folder(tiny_bert) == before
    found = figures(run)
    assert found["eval_n"] == pytest.approx(24, abs=12)
    assert found["eval_accuracy"] > 0.9
    assert found["eval_auroc"] > 0.95
    assert found["eval_length_auroc"] < 0.8
    assert any("held-out examples" in line and "by length alone" in line for line in said)
    assert AutoConfig.from_pretrained(run.weights).id2label == {0: "false", 1: "true"}
    assert run.labels == ("false", "true")
    assert run.manifest["dataset"]["id"] == str(spoken)
    if tuning == "full":
        model = AutoModelForSequenceClassification.from_pretrained(run.weights).eval()
        batch = AutoTokenizer.from_pretrained(run.weights)(["what is 5?"], ["abczzz"], return_tensors="pt")
        with torch.no_grad():
            assert model.config.id2label[model(**batch).logits.argmax().item()] == "true"


def test_one_step_changes_every_weight_of_an_encoder(workspace: Workspace, tiny_bert: Path, spoken: Path) -> None:
    keys = [f"dataset={spoken}", f"model={tiny_bert}", "max_steps=1", "learning_rate=1e-3"]
    run = train(workspace, "classifier", keys, quiet)
    old, new = load_file(tiny_bert / "model.safetensors"), load_file(run.weights / "model.safetensors")
    assert {name for name in new if "classifier" not in name} == {f"bert.{name}" for name in old}
    assert [name for name in old if torch.equal(old[name], new[f"bert.{name}"])] == []


def test_a_batch_in_parts_is_the_same_batch(workspace: Workspace, tiny_bert: Path, spoken: Path) -> None:
    calm = workspace.root / "calm"
    shutil.copytree(tiny_bert, calm)
    config = AutoConfig.from_pretrained(tiny_bert)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.save_pretrained(calm)
    keys = [f"dataset={spoken}", f"model={calm}", "max_steps=1", "log_every=1"]
    whole, parts = (
        train(workspace, "classifier", [*keys, f"batch_size={size}", f"gradient_accumulation={12 // size}"], quiet)
        for size in (12, 3)
    )
    first, second = (next(line for line in run.metrics() if "grad_norm" in line) for run in (whole, parts))
    assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
    assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_decoder_learns_which_answers_were_chosen(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, tuning: str
) -> None:
    keys = ["dataset=sums", f"model={tiny_model}", f"tuning={tuning}", "max_steps=2", "learning_rate=1e-2"]
    run = train(workspace, "classifier", keys, quiet)
    assert run.labels == ("rejected", "chosen")
    assert run.manifest["preflight"]["rows"] == 2 * len(small_dataset.pairs("train"))
    assert "⟦chosen⟧" in run.manifest["preflight"]["example"] or "⟦rejected⟧" in run.manifest["preflight"]["example"]
    assert figures(run)["eval_n"] == 2 * len(small_dataset.pairs("validation"))


def test_a_classifier_goes_on_from_a_run_that_writes_and_from_one_that_labels(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, spoken: Path
) -> None:
    keys = ["dataset=sums", "max_steps=1", "learning_rate=1e-3"]
    writer = train(workspace, "sft", [*keys, f"model={tiny_model}"], quiet)
    first = train(workspace, "classifier", [*keys, f"parent={writer.id}"], quiet)
    second = train(workspace, "classifier", [*keys, f"parent={first.id}", "tuning=lora"], quiet)
    third = train(workspace, "classifier", [*keys, f"parent={second.id}", "tuning=lora"], quiet)
    assert third.manifest["model"]["name"] == str(first.weights)
    with pytest.raises(UserError, match=r"its labels are false, true; those of the parent .* rejected, chosen"):
        train(workspace, "classifier", [f"dataset={spoken}", f"parent={third.id}", "tuning=lora"], quiet)
    with pytest.raises(UserError, match="which judges answers and writes none"):
        train(workspace, "sft", ["dataset=sums", f"parent={third.id}"], quiet)


def test_an_encoder_reads_the_conversation_and_the_answer_apart(tiny_bert: Path) -> None:
    tokenizer = models.load_tokenizer(str(tiny_bert))
    row, cut = encode_example(tokenizer, Example(user_message("who?"), "me", "a"), 64)
    assert tokenizer.decode(row["input_ids"]) == "[CLS] w h o ? [SEP] m e [SEP]"
    assert row["token_type_ids"] == [0] * 6 + [1] * 3
    assert not cut
    row, cut = encode_example(tokenizer, Example(user_message("w" * 90), "me", "a"), 20)
    assert (len(row["input_ids"]), cut) == (20, True)
    assert tokenizer.decode(row["input_ids"]).endswith("[SEP] m e [SEP]")
    row, _ = encode_example(tokenizer, Example((), "me", "a"), 64)
    assert tokenizer.decode(row["input_ids"]) == "[CLS] m e [SEP]"


def test_a_decoder_reads_the_label_at_the_answers_eos(tiny_model: Path) -> None:
    tokenizer = models.load_tokenizer(str(tiny_model))
    row, cut = encode_example(tokenizer, Example(user_message("who?"), "me", "a"), 64)
    assert tokenizer.decode(row["input_ids"]) == "<|user|>who?<|end|><|assistant|>me<|end|>"
    row, cut = encode_example(tokenizer, Example(user_message("w" * 90), "me", "a"), 20)
    assert (len(row["input_ids"]), cut) == (20, True)
    assert tokenizer.decode(row["input_ids"]) == f"<|user|>{'w' * 14}<|end|><|assistant|>me<|end|>"
    assert encode_rows(tokenizer, [Example((), "alone", "a")], 64)[0][0]["input_ids"][-1] == tokenizer.eos_token_id


def test_a_file_with_mistakes_and_a_bad_key_are_reported_together(
    workspace: Workspace, tiny_bert: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b"}\n')
    with pytest.raises(UserError) as caught:
        train(workspace, "classifier", [f"dataset={path}", f"model={tiny_bert}", "max_length=100"], quiet)
    assert any("line 2: label: missing" in line for line in caught.value.lines)
    assert any("max_length: 100 is more than the model's 64 positions" in line for line in caught.value.lines)
    with pytest.raises(UserError, match=r"columns: .* is not allowed"):
        train(workspace, "classifier", [f"dataset={path}", f"model={tiny_bert}", "columns.labels=x"], quiet)


def test_a_finished_classifier_labels_answers_and_texts(
    workspace: Workspace, tiny_bert: Path, tiny_model: Path, spoken: Path, small_dataset: DatasetVersion
) -> None:
    keys = [f"dataset={spoken}", f"model={tiny_bert}", "tuning=lora", "max_steps=2", "learning_rate=1e-2"]
    run = train(workspace, "classifier", keys, quiet)
    labeller = load_labeller(run)
    prompts = [[{"role": "user", "content": "what is 4?"}], [], [{"role": "user", "content": "what?"}]]
    answers = ["abczzz", "a text alone", "yyy"]
    found = labeller(prompts, answers)
    assert [sum(of_one.values()) for of_one in found] == pytest.approx([1, 1, 1])
    model = adapters.load_adapter(
        models.load_base(str(tiny_bert), head="labels", labels=("false", "true")), run.weights
    ).eval()
    tokenizer = models.load_tokenizer(str(tiny_bert))
    for prompt, answer, of_one in zip(prompts, answers, found, strict=True):
        texts = [*(message["content"] for message in prompt), answer]
        with torch.no_grad():
            alone = model(**tokenizer(*texts, return_tensors="pt")).logits.softmax(-1)[0].tolist()
        assert list(of_one.values()) == pytest.approx(alone, abs=1e-6)
        assert list(of_one) == ["false", "true"]
    assert labeller([], []) == []
    writer = train(workspace, "sft", ["dataset=sums", f"model={tiny_model}", "max_steps=1"], quiet)
    with pytest.raises(UserError, match="which gives no labels; name a classifier run"):
        load_labeller(writer)


def test_lineage_leads_to_the_file_of_labels(
    workspace: Workspace, tiny_bert: Path, spoken: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text(spoken.read_text())
    run = train(workspace, "classifier", [f"dataset={mine}", f"model={tiny_bert}", "max_steps=1"], quiet)

    def of_file() -> tuple[str, str, str]:
        (link,) = (link for link in trace(workspace, run.id)["upstream"] if link["kind"] == "file")
        return link["id"], link["hash"], link["state"]

    assert of_file() == (str(mine), hash_file(mine), "ok")
    mine.write_text("altered")
    assert of_file()[2] == "altered"
    mine.unlink()
    assert of_file()[2] == "missing"


def test_an_encoder_can_not_write(workspace: Workspace, small_dataset: DatasetVersion, tiny_bert: Path) -> None:
    with pytest.raises(UserError, match="its tokenizer has no chat template"):
        train(workspace, "sft", ["dataset=sums", f"model={tiny_bert}"], quiet)
