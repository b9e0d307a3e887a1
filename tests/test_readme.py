"""The READMEs: every command in them exists with the options it is shown with, every file they name is there."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training import chain
from training.config import load_recipe

ROOT = Path(__file__).parents[1]
READMES = [
    ROOT / "README.md",
    *(ROOT / folder / "README.md" for folder in ("feedback", "training", "evaluation", "ui")),
]
GROUPS = {"feedback", "data", "train", "report"}


def commands() -> list[str]:
    lines = [line.strip() for path in READMES for line in path.read_text().splitlines() if line.startswith("    ")]
    return [line for line in lines if re.match(r"(\.venv/bin/)?veritune ", line)]


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 15


@pytest.mark.parametrize("line", commands())
def test_a_command_is_as_it_is_shown(veritune: Callable[..., Any], line: str) -> None:
    words = shlex.split(line.split("&&")[0], comments=True)[1:]
    path = words[:2] if words[0] in GROUPS else words[:1]
    ended = veritune(*path, "--help")
    assert ended.status == 0
    assert [word for word in words if word.startswith("--") and word not in ended.out] == []
    if path[0] == "train" and path[1] in chain.names():
        chain.read_stages(path[1], words[2:])
    elif path[0] == "train" and path[1] not in ("status", "stop", "resume", "recipe"):
        load_recipe(path[1], [word for word in words[2:] if not word.startswith("--")])


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_the_files_that_a_readme_names_are_there(readme: Path) -> None:
    rows = [line.split("|")[1] for line in readme.read_text().splitlines() if line.startswith("| `")]
    names = [name for row in rows for name in re.findall(r"`([\w/.*]+)`", row)]
    assert [name for name in names if not list(readme.parent.glob(name.rstrip("/")))] == []


@pytest.mark.parametrize("folder", ["feedback", "training", "evaluation", "ui"])
def test_every_file_of_a_package_is_named_in_its_readme(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text()
    files = [
        path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.py") if not path.name.startswith("__")
    ]
    unnamed = [str(path) for path in files if path.name not in text and f"{path.parts[0]}/" not in text]
    assert unnamed == []
