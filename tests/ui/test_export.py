"""Exports as a user makes them: files that others load, a private repository on a hub, a server that answers."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from tests.endpoints import healthy
from tests.ui import hub
from training import export
from training.launch import train
from training.runs import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path) -> Run:
    keys = ["dataset=sums", f"model={tiny_model}", "max_steps=2", "learning_rate=1e-2"]
    return train(workspace, "sft", keys, lambda line: None)


def test_merged_and_adapter_load_without_veritune(
    veritune: Callable[..., Any], workspace: Workspace, run: Run, tiny_model: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    here = ("--workspace", str(workspace.root), "export", run.id)
    assert veritune(*here, "merged").status == 0
    assert veritune(*here, "adapter").status == 0
    merged, adapter = (workspace.root / "exports" / run.id / kind for kind in ("merged", "adapter"))
    question = [{"role": "user", "content": "2 + 2?"}]
    tokenizer = AutoTokenizer.from_pretrained(merged)
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answers = [
        model.generate(**ids, max_new_tokens=20, do_sample=False).tolist()
        for model in (
            AutoModelForCausalLM.from_pretrained(merged),
            PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), adapter),
        )
    ]
    assert answers[0] == answers[1]
    again = veritune(*here, "merged")
    assert again.status == 2
    assert again.lines[-1] == f"error: {merged}: exists already; remove it, or name another place with --to"
    assert "library_name: transformers" in (merged / "README.md").read_text()
    assert "library_name: peft" in (adapter / "README.md").read_text()


def test_a_card_has_lineage_recipe_and_the_reports_about_the_run(
    veritune: Callable[..., Any], workspace: Workspace, run: Run, tmp_path: Path
) -> None:
    here = ("--workspace", str(workspace.root))
    veritune(*here, "export", run.id, "adapter", "--to", str(tmp_path / "before"))
    assert f"Not evaluated yet: `veritune eval {run.id}`." in (tmp_path / "before" / "README.md").read_text()
    report = veritune(*here, "eval", run.id, "--merged", "--json")
    assert "The tuned model's weights are the merged ones." in report["notes"]
    veritune(*here, "export", run.id, "adapter", "--to", str(tmp_path / "after"))
    card = (tmp_path / "after" / "README.md").read_text()
    dataset = run.manifest["dataset"]
    assert f"| dataset | {dataset['id']} | {dataset['fingerprint'][:12]} | ok |" in card
    assert "eval-1, against tiny" in card
    assert "| task | metric | n | base | tuned |" in card
    assert "learning_rate: 0.01" in card
    assert str(tmp_path) not in card


def test_no_converter_is_one_line_that_says_where_it_is_from(
    veritune: Callable[..., Any], workspace: Workspace, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = veritune("--workspace", str(workspace.root), "export", run.id, "gguf")
    assert ended.status == 2
    assert ended.lines[-1].startswith("error: gguf: no convert_hf_to_gguf.py on the PATH; it is a file of llama.cpp")


@pytest.mark.parametrize("works", [True, False])
def test_a_converter_gets_the_merged_model_and_its_last_words_are_told(
    veritune: Callable[..., Any],
    workspace: Workspace,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    works: bool,
) -> None:
    """In llama.cpp's converter's place: one that keeps what it was asked, or fails as that one does."""
    script = tmp_path / export.CONVERTER
    lines = ["import sys", "open(sys.argv[sys.argv.index('--outfile') + 1], 'w').write(sys.argv[1])"]
    script.write_text("\n".join(lines if works else ["raise NotImplementedError('BPE pre-tokenizer')"]))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = veritune("--workspace", str(workspace.root), "export", run.id, "gguf")
    path = workspace.root / "exports" / run.id / f"{run.id}.gguf"
    if works:
        assert ended.status == 0
        assert (Path(path.read_text()) / "model.safetensors").is_file()
    else:
        assert ended.status == 2
        last = "error: gguf: convert_hf_to_gguf.py did not convert sft-1 (NotImplementedError: BPE pre-tokenizer)"
        assert ended.lines[-1] == last
        assert not path.exists()


def test_the_hub_gets_a_private_repository_with_weights_and_card(workspace: Workspace, run: Run) -> None:
    with hub.serving() as there:
        environment = os.environ | {
            "HF_ENDPOINT": there.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "hf_of_this_test",
        }

        def upload(*options: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "ui", "--workspace", str(workspace.root), "export", run.id, "hub"]
            return subprocess.run(
                [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )

        ended = upload("--repo", "me/truthful")
        assert ended.returncode == 0, ended.stderr
        assert f"{there.url}/me/truthful" in ended.stderr
        assert there.private == {"me/truthful": True}
        weights = "adapter_model.safetensors"
        assert there.files[weights] == (run.weights / weights).read_bytes()
        assert b"## Lineage" in there.files["README.md"]
        assert there.tokens == {"Bearer hf_of_this_test"}

        there.private["me/open"] = False
        refused = upload("--repo", "me/open")
        assert refused.returncode == 2
        assert "me/open is public already; add --public, or name another --repo" in refused.stderr


def test_nothing_is_uploaded_without_a_name(veritune: Callable[..., Any], workspace: Workspace, run: Run) -> None:
    ended = veritune("--workspace", str(workspace.root), "export", run.id, "hub")
    assert ended.status == 2
    assert "nothing is uploaded without a name" in ended.err
    offline = veritune("--workspace", str(workspace.root), "export", run.id, "hub", "--repo", "me/model")
    assert offline.status == 2
    assert offline.lines[-1].startswith("error: hub: me/model can't be written (")


def test_a_served_run_answers_the_openai_client(workspace: Workspace, run: Run, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ui", "--workspace", str(workspace.root), "serve", run.id]
    command += ["--server", "transformers", "--port", str(port)]
    log = tmp_path / "log.txt"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with log.open("w") as out:
        server = subprocess.Popen(
            [*command, "--server", "transformers"], cwd=ROOT, stdout=out, stderr=out, env=environment
        )
    try:
        while not healthy(port):
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
        client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=120)
        answer = client.chat.completions.create(
            model=run.id, messages=[{"role": "user", "content": "2 + 2?"}], max_tokens=8, temperature=0
        )
    finally:
        server.terminate()
        server.wait()
    assert f"model sft-1 at http://127.0.0.1:{port}/v1" in log.read_text()
    assert answer.choices[0].message.content == _here(run, "2 + 2?", 8)


def _here(run: Run, question: str, tokens: int) -> str:
    from training import finished

    model, tokenizer = finished.load(run)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    output = model.generate(**ids, max_new_tokens=tokens, do_sample=False)
    return str(tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
