"""The labelling server's own environment: whole or absent, and made once."""

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.argilla.server import environment
from feedback.argilla.server.environment import python_of_server
from feedback.errors import UserError


@pytest.fixture(scope="module")
def name() -> str:
    """What its folder is called in any cache."""
    return python_of_server(print).parents[1].name


@pytest.fixture
def cache(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a package index that has nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    return tmp_path / "cache" / "veritune"


def folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def test_it_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    python = python_of_server(print)
    # Nothing has to be fetched, and nothing is said.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert python_of_server(pytest.fail) == python
    assert python.is_file()


def test_a_failed_install_gives_one_line_and_leaves_nothing(cache: Path) -> None:
    said: list[str] = []
    with pytest.raises(UserError) as caught:
        python_of_server(said.append)
    (line,) = caught.value.lines
    assert "environment could not be made: No matching distribution found for" in line
    assert "\n" not in line
    (log,) = cache.glob("*.log")
    assert str(log) in line
    assert "No matching distribution" in log.read_text()
    assert folders(cache) == []
    assert len(said) == 1
    assert "once for this machine" in said[0]


def test_the_command_ends_with_that_line(cache: Path, veritune: Callable[..., Any]) -> None:
    veritune("init", "here")
    ended = veritune("--workspace", "here", "feedback", "serve", "--port", "6998")
    assert ended.status == 2
    assert ended.lines[-1].startswith("error: the labelling server's environment could not be made")
    assert "Traceback" not in ended.err


def test_a_half_made_one_is_not_taken_for_a_whole_one(cache: Path, name: str) -> None:
    half = cache / name
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").touch()
    with pytest.raises(UserError):
        python_of_server(lambda line: None)
    assert not half.exists()


def test_a_damaged_package_is_refused(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "aiofiles-24.1.0-py3-none-any.whl"
    wheel.write_bytes(b"other bytes than those that were locked")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError, match="DO NOT MATCH THE HASHES"):
        python_of_server(lambda line: None)
    assert folders(cache) == []


def test_who_comes_second_waits(cache: Path, name: str) -> None:
    cache.mkdir(parents=True)
    waits = threading.Event()
    ended: list[str] = []

    def say(line: str) -> None:
        if "waiting" in line:
            waits.set()

    def second() -> None:
        try:
            python_of_server(say)
        except UserError as error:
            ended.append(str(error))

    with (cache / f"{name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(60)
        assert folders(cache) == []
    thread.join()
    assert "could not be made" in ended[0]


def test_a_cache_that_can_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/veritune.*can't be made here.*XDG_CACHE_HOME"):
        python_of_server(lambda line: None)


def test_a_python_that_is_too_new_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "NEWEST_PYTHON", 10)
    with pytest.raises(UserError, match=r"too new for the labelling server"):
        python_of_server(lambda line: None)
