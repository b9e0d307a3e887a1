"""The command line: what it answers, how it says what is wrong, and that it is quick to help."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.versions import DatasetVersion
from feedback.workspace import Workspace

ROOT = Path(__file__).parents[2]
COMMANDS = [
    (),
    ("init",),
    ("doctor",),
    ("demo",),
    ("ui",),
    ("eval",),
    ("lineage",),
    ("report",),
    ("report", "show"),
    ("report", "list"),
    ("feedback",),
    ("feedback", "import"),
    ("feedback", "list"),
    ("feedback", "agreement"),
    ("feedback", "generate"),
    ("feedback", "judge"),
    ("feedback", "revise"),
    ("feedback", "principles"),
    ("feedback", "serve"),
    ("feedback", "status"),
    ("feedback", "stop"),
    ("feedback", "push"),
    ("feedback", "pull"),
    ("feedback", "backup"),
    ("feedback", "restore"),
    ("feedback", "raters"),
    ("feedback", "raters", "add"),
    ("feedback", "raters", "list"),
    ("feedback", "raters", "remove"),
    ("watch",),
    ("data",),
    ("data", "build"),
    ("data", "show"),
    ("data", "list"),
    ("data", "diff"),
    ("data", "export"),
    ("train",),
    ("train", "recipe"),
    ("train", "resume"),
    ("train", "stop"),
    ("train", "list"),
    ("train", "status"),
    ("train", "logs"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(veritune: Callable[..., Any], command: tuple[str, ...]) -> None:
    ended = veritune(*command, "--help")
    assert ended.status == 0
    assert "Usage:" in ended.out


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['veritune', '--help']\n"
        "from ui.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'gradio', 'argilla', 'pandas', 'numpy', 'pyarrow', 'lm_eval'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == "[]"


def test_no_workspace_is_said_in_one_line_with_the_remedy(veritune: Callable[..., Any]) -> None:
    ended = veritune("data", "list")
    assert ended.status == 2
    assert len(ended.lines) == 1
    assert "veritune init" in ended.err


def test_init_makes_a_workspace_that_the_next_command_finds(veritune: Callable[..., Any], tmp_path: Path) -> None:
    assert veritune("init", "here").status == 0
    assert veritune("--workspace", "here", "feedback", "list", "--json") == {}
    (tmp_path / "here" / "veritune.toml").write_text('modle = "x"\n[evaluation]\nquestion = []\n')
    ended = veritune("--workspace", "here", "train", "sft", "dataset=x")
    assert ended.status == 2
    assert "modle" in ended.err
    assert "evaluation.question" in ended.err


def test_a_recipe_with_mistakes_of_every_kind_reports_all(
    veritune: Callable[..., Any], workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    ended = veritune(
        *(
            "--workspace",
            workspace.root,
            "train",
            "dpo",
            "dataset=sumz",
            "model=/no/such/model",
            "beta=-1",
            "lora.rank=4",
        )
    )
    assert ended.status == 2
    assert len(ended.lines) == 4
    assert "Traceback" not in ended.err
    for part in ("'sumz'", "'/no/such/model'", "beta: -1", "lora.rank: no such key; did you mean lora.r"):
        assert part in ended.err
    assert list(workspace.runs.iterdir()) == []


def test_a_target_that_matches_nothing_lists_what_there_is(
    veritune: Callable[..., Any], workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    ended = veritune(
        *("--workspace", workspace.root, "train", "sft", "dataset=sums", f"model={tiny_model}"),
        "lora.targets=[q_proj, w_pack]",
    )
    assert ended.status == 2
    assert ended.lines == [
        "error: lora.targets: 'w_pack' matches no layer; there are down_proj, gate_proj, k_proj, o_proj, q_proj, "
        "up_proj, v_proj"
    ]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("chat_template", None, "no chat template"),
        (
            "pad_token",
            "<|end|>",
            "pads with its EOS '<|end|>', which teaches models not to stop; set pad_token=<|pad|>",
        ),
    ],
)
def test_a_tokenizer_that_would_spoil_the_run_gets_a_remedy(
    veritune: Callable[..., Any],
    workspace: Workspace,
    small_dataset: DatasetVersion,
    tiny_model: Path,
    tmp_path: Path,
    key: str,
    value: str | None,
    expected: str,
) -> None:
    import shutil

    from transformers import AutoTokenizer

    folder = tmp_path / "spoiled"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    setattr(tokenizer, key, value)
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)
    ended = veritune("--workspace", workspace.root, "train", "sft", "dataset=sums", f"model={folder}")
    assert ended.status == 2
    assert len(ended.lines) == 1
    assert expected in ended.err


def test_altered_data_is_refused_by_its_hash(
    veritune: Callable[..., Any], workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    path = small_dataset.folder / "pairs" / "train.arrow"
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    for command in (("data", "show", "sums"), ("train", "dpo", "dataset=sums", f"model={tiny_model}")):
        ended = veritune("--workspace", workspace.root, *command)
        assert ended.status == 2
        assert len(ended.lines) == 1
        assert "no longer matches the version's hash" in ended.err


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["batch_size=64"], "memory: a step needs about"),
        (["max_length=24"], "rows are cut off at 24 tokens"),
        (["max_length=100000"], "more than the model's 256 positions"),
    ],
)
def test_a_run_that_can_not_work_is_refused_before_it_starts(
    veritune: Callable[..., Any],
    workspace: Workspace,
    small_dataset: DatasetVersion,
    tiny_model: Path,
    keys: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import psutil

    from feedback.database import Database
    from feedback.schema import Demonstration, user_message

    with Database(workspace.database) as database:
        rows = [
            Demonstration(prompt=user_message(f"{n}?"), completion="a long answer " * 3, provenance="test")
            for n in range(99)
        ]
        database.add("long", demonstrations=rows)
    assert veritune("--workspace", workspace.root, "data", "build", "long", "--from", "long").status == 0
    # 30,000 weights take little: the machine is what has to be small. 8 rows at a time would fit, 64 do not.
    memory = psutil.virtual_memory()._replace(available=25 * 2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    ended = veritune("--workspace", workspace.root, "train", "sft", "dataset=long", f"model={tiny_model}", *keys)
    assert ended.status == 2
    assert expected in ended.err


def test_bad_rows_are_named_and_the_good_ones_go_in(
    veritune: Callable[..., Any], workspace: Workspace, tmp_path: Path
) -> None:
    good = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
    rows = [json.dumps(good), "{not json", json.dumps(good | {"prompt": "Who?"}), json.dumps(good | {"chosen": ""})]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    result = veritune("--workspace", workspace.root, "feedback", "import", "trl", "rows.jsonl", "--json")
    assert (result["rows"], result["refused"]) == (4, 2)
    assert result["added"]["candidates"] == 2
    rejects = [json.loads(line) for line in Path(result["rejects"]).read_text().splitlines()]
    assert [row["line"] for row in rejects] == [2, 4]


def test_data_show_has_the_promised_keys(
    veritune: Callable[..., Any], workspace: Workspace, small_dataset: DatasetVersion
) -> None:
    shown = veritune("--workspace", workspace.root, "data", "show", "sums", "--json")
    assert list(shown) == ["name", "version", "fingerprint", "splits", "pairs", "demonstrations", "dropped"]
    assert list(shown["splits"]) == ["train", "validation", "test"]
    assert shown["pairs"] == shown["demonstrations"] == 60
    assert sum(shown["splits"].values()) == 120


def test_a_fault_of_ours_is_one_line_and_a_traceback_in_the_log(
    veritune: Callable[..., Any], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("feedback.versions.all_versions", fail)
    ended = veritune("--workspace", workspace.root, "data", "list")
    assert ended.status == 1
    assert ended.lines == [f"failed: by zero (details in {workspace.log})"]
    assert "ZeroDivisionError" in workspace.log.read_text()


def test_a_killed_run_shows_as_interrupted(
    veritune: Callable[..., Any], workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    command = [sys.executable, "-m", "ui", "--workspace", str(workspace.root), "train", "sft", "dataset=sums"]
    keys = [f"model={tiny_model}", "epochs=1000", "log_every=1"]
    process = subprocess.Popen([*command, *keys], cwd=ROOT, stderr=subprocess.DEVNULL)
    metrics = workspace.runs / "sft-1" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() or not metrics.read_text().count("\n"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    status = veritune("--workspace", workspace.root, "train", "status", "sft-1", "--json")
    assert status["state"] == "running"
    process.kill()
    process.wait()
    status = veritune("--workspace", workspace.root, "train", "status", "sft-1", "--json")
    assert status["state"] == "interrupted"
    (row,) = veritune("--workspace", workspace.root, "train", "list", "--json")
    assert row["state"] == "interrupted"
    assert veritune("--workspace", workspace.root, "eval", "sft-1").status == 2


def test_help_names_every_format_and_takes_a_recipe(veritune: Callable[..., Any]) -> None:
    from feedback.formats import EXPORTS, IMPORTS

    for command, names in ((("feedback", "import"), IMPORTS), (("data", "export"), EXPORTS)):
        words = veritune(*command, "--help").out.replace("│", " ").replace(",", " ").replace(".", " ").split()
        assert [name for name in names if name not in words] == []
    assert "KEY=VALUE" in veritune("train", "dpo", "--help").out


def test_a_printed_recipe_is_one_that_can_be_used(
    veritune: Callable[..., Any], workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(veritune("train", "recipe", "sft").out)
    keys = ("mine.yaml", "dataset=sums", f"model={tiny_model}", "max_steps=1")
    assert veritune("--workspace", workspace.root, "train", *keys, "--json")["state"] == "finished"
    assert veritune("train", "recipe", "dop").status == 2
