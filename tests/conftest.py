"""What every test has: an own workspace, no network, no state of the person who runs it, and a tiny model."""

import os

# Before torch is imported: threads that spin while they wait make a loaded machine several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Side by side, each has its share of the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from feedback import workspace as workspaces
from feedback.curation.build import build
from feedback.database import Database
from feedback.schema import Candidate, Demonstration, Judgement, Rater, Response, user_message
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace

# For fixtures that live longer than a test: nobody else's runs are waited for.
os.environ["VERITUNE_QUEUE"] = tempfile.mkdtemp(prefix="veritune-queue-")
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU that torch can use"))


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets-cache"))
    for service in ("ARGILLA_API", "VERITUNE_ENDPOINT"):
        monkeypatch.delenv(f"{service}_URL", raising=False)
        monkeypatch.delenv(f"{service}_KEY", raising=False)
    monkeypatch.delenv(workspaces.ENVIRONMENT_VARIABLE, raising=False)
    # Runs of tests wait for each other's, not for those of the person or of other tests.
    monkeypatch.setenv("VERITUNE_QUEUE", str(tmp_path / "queue"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return workspaces.create(tmp_path / "workspace")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real open data beside the checkout, where it is at hand."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data beside the checkout ({folder} is absent)")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def make_tiny_model(folder: Path) -> Path:
    """A Llama of some 30,000 random weights with a byte-level tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    bpe = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*special, *alphabet])}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=special[0], eos_token=special[1], additional_special_tokens=special[2:]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            initializer_range=0.1,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.eos_token_id,
        )
    )
    tokenizer.save_pretrained(str(folder))
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture
def small_dataset(workspace: Workspace) -> DatasetVersion:
    return make_small_dataset(workspace)


def make_small_dataset(workspace: Workspace) -> DatasetVersion:
    """60 judged pairs of made-up sums, with as many demonstrations."""
    rng = random.Random(0)
    candidates, judgements, demonstrations = [], [], []
    for _ in range(60):
        a, b = rng.randrange(100), rng.randrange(100)
        prompt = user_message(f"{a} + {b}?")
        right, wrong = str(a + b), str(a + b + rng.randrange(1, 9))
        candidate = Candidate(prompt=prompt, responses=(Response(text=wrong), Response(text=right)))
        candidates.append(candidate)
        judgements.append(
            Judgement(candidate_id=candidate.id, rater=Rater(kind="human", name="ann"), source="test", preferred=1)
        )
        demonstrations.append(Demonstration(prompt=prompt, completion=right, provenance="test"))
    with Database(workspace.database) as database:
        database.add("sums", candidates, judgements, demonstrations)
    return build(workspace, "sums")[0]


@pytest.fixture
def veritune(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command in this process; its exit status, output and error output, or with --json its result."""

    def run(*arguments: str) -> Any:
        import sys

        from ui.cli import main

        before = sys.argv
        sys.argv = ["veritune", *map(str, arguments)]
        try:
            main()
            status = 0
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        finally:
            sys.argv = before
        out, err = capsys.readouterr()
        if "--json" in arguments and status == 0:
            return json.loads(out)
        return Ended(status, out, err)

    return run


class Ended:
    """How a command ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def lines(self) -> Sequence[str]:
        return [line for line in self.err.splitlines() if line.strip()]


@pytest.fixture(scope="session")
def labelling_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace whose labelling server runs; a test makes projects and raters of its own in it."""
    from feedback.argilla.server import control
    from tests.feedback.argilla.serving import free_port

    workspace = workspaces.create(tmp_path_factory.mktemp("labelling") / "workspace")
    control.start(workspace, port=free_port())
    yield workspace
    control.stop(workspace)
