"""The labelling server's own environment: whole or absent, and made once."""

import fcntl
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from feedback.argilla.server import environment
from feedback.argilla.server.environment import python_of_server
from feedback.errors import UserError
from tests.feedback.argilla.serving import free_port


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


def test_a_failed_install_gives_one_line_and_leaves_nothing(
    cache: Path, name: str, veritune: Callable[..., Any]
) -> None:
    # What an install that was killed has left is not taken for a whole one.
    (cache / name / "bin").mkdir(parents=True)
    (cache / name / "bin" / "python").touch()
    veritune("init", "here")
    ended = veritune("--workspace", "here", "feedback", "serve", "--port", str(free_port()))
    assert ended.status == 2
    said, line = ended.lines
    assert "once for this machine" in said
    assert line.startswith("error: the labelling server's environment could not be made: No matching distribution")
    (log,) = cache.glob("*.log")
    assert str(log) in line
    assert "No matching distribution" in log.read_text()
    assert folders(cache) == []


def test_a_damaged_package_is_refused(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "aiofiles-24.1.0-py3-none-any.whl"
    wheel.write_bytes(b"other bytes than those that were locked")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError, match="DO NOT MATCH THE HASHES"):
        python_of_server(lambda line: None)
    assert folders(cache) == []


def test_who_comes_second_waits_and_takes_what_the_first_has_made(cache: Path, name: str) -> None:
    cache.mkdir(parents=True)
    made = cache / name
    with (cache / f"{name}.lock").open("w") as held, ThreadPoolExecutor() as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        waits = threading.Event()
        second = pool.submit(python_of_server, lambda line: waits.set() if "waiting" in line else pytest.fail(line))
        assert waits.wait(60)
        (made / "bin").mkdir(parents=True)
        (made / "bin" / "python").touch()
        (made / "complete").touch()
        assert not second.done()
        fcntl.flock(held, fcntl.LOCK_UN)
        assert second.result(60) == made / "bin" / "python"


def test_a_cache_that_can_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/veritune.*can't be made here.*XDG_CACHE_HOME"):
        python_of_server(lambda line: None)


def test_a_python_that_is_too_new_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "NEWEST_PYTHON", 10)
    with pytest.raises(UserError, match=r"too new for the labelling server"):
        python_of_server(lambda line: None)
