"""The labelling server's own environment: its pins don't go with veritune's. It is made once for a machine."""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from feedback.errors import UserError
from feedback.files import content_hash, write_atomic
from feedback.lock import only_one

NAME = "argilla-server-2.8.0"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
MEGABYTES = 310
# The last Python for which all the locked packages have wheels.
NEWEST_PYTHON = 13


def python_of_server(say: Callable[[str], None]) -> Path:
    """The interpreter of the server's environment, which is made if it is not there yet.

    Args:
        say: takes the lines of progress; nothing is said where the environment is there.

    Raises:
        UserError: it can't be made; no part of it is left.
    """
    base, version = _base_python()
    platform_of_wheels = [REQUIREMENTS.read_text(), version, sys.platform, platform.machine()]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "veritune"
    folder = cache / f"{NAME}-{content_hash(platform_of_wheels)[:12]}"
    if not _is_whole(folder):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with only_one(cache / f"{folder.name}.lock", lambda: say("another veritune is making it; waiting")):
                if not _is_whole(folder):
                    _make(folder, base, say)
        except OSError as error:
            raise UserError(
                f"{error.filename or folder}: the labelling server's environment can't be made here "
                f"({error.strerror}); free some space, or name another cache folder in XDG_CACHE_HOME"
            ) from None
    return _python(folder)


def _base_python() -> tuple[str, str]:
    if sys.version_info.minor <= NEWEST_PYTHON:
        return sys.executable, f"3.{sys.version_info.minor}"
    for minor in range(NEWEST_PYTHON, 10, -1):
        if found := shutil.which(f"python3.{minor}"):
            return found, f"3.{minor}"
    raise UserError(
        f"Python 3.{sys.version_info.minor}: too new for the labelling server; "
        f"install Python 3.{NEWEST_PYTHON} beside it (as python3.{NEWEST_PYTHON} on the PATH)"
    )


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _marker(folder: Path) -> Path:
    return folder / "complete"


def _is_whole(folder: Path) -> bool:
    # The interpreter is a link: it dangles when the Python that it was made from has gone.
    return _marker(folder).is_file() and _python(folder).exists()


def _make(folder: Path, base: str, say: Callable[[str], None]) -> None:
    say(f"making the labelling server's environment, {MEGABYTES} MB, once for this machine: {folder}")
    began, log = time.monotonic(), folder.with_name(f"{folder.name}.log")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with log.open("w") as output:
            # -I: a PYTHONPATH of the user's is not for this interpreter; pip's own settings (indexes, proxies) are.
            _run([base, "-I", "-m", "venv", str(folder)], output, lambda line: None)
            install = [str(_python(folder)), "-I", "-m", "pip", "install", "--no-deps", "--require-hashes"]
            options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
            _run([*install, *options, "-r", str(REQUIREMENTS)], output, _Progress(say).see)
        write_atomic(_marker(folder), "")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    say(f"the environment is there ({time.monotonic() - began:.0f} s)")


class _Progress:
    """Tells from pip's output how far it is."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._fetched = say, 0
        self._all = sum("==" in line for line in REQUIREMENTS.read_text().splitlines() if line[:1].isalnum())

    def see(self, line: str) -> None:
        if line.startswith("Ignoring "):
            self._all -= 1
        elif line.startswith(("Collecting ", "Processing ")):
            self._fetched += 1
            if self._fetched % 20 == 0:
                self._say(f"  {self._fetched} of {self._all} packages")
        elif line.startswith("Installing "):
            self._say(f"  installing {self._fetched} packages")
        elif "Retrying" in line and not self._fetched:
            self._say("  the package index does not answer; pip tries again")


def _run(command: list[str], output: IO[str], see: Callable[[str], None]) -> None:
    lines = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.write(line)
            lines.append(line.strip())
            see(line)
    if process.returncode:
        # pip ends with its error; venv begins with it.
        told = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")][-1:]
        reason = (told or [line for line in lines if line] or ["no reason was given"])[0]
        raise UserError(
            f"the labelling server's environment could not be made: {reason}; "
            f"see that the package index can be reached, and try again (all that was said is in {output.name})"
        )
