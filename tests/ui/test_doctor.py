"""What doctor finds is what is there."""

from pathlib import Path

import psutil
import pytest
import torch

from feedback.workspace import ENVIRONMENT_VARIABLE, Workspace
from ui import doctor
from ui.doctor import examine


def found() -> dict[str, doctor.Finding]:
    findings = examine()
    assert len({finding.name for finding in findings}) == len(findings)
    assert all(finding.value and finding.means for finding in findings)
    return {finding.name: finding for finding in findings}


def test_it_tells_versions_place_and_hub(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    without = found()
    assert f"torch {torch.__version__}" in without["packages"].value
    assert without["workspace"].value == "none"
    assert "veritune init" in without["workspace"].means
    assert "offline" in without["model hub"].value
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(workspace.root))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    within = found()
    assert within["workspace"].value == str(workspace.root)
    assert "offline" not in within["model hub"].value


def test_memory_becomes_a_size_of_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of 16 GiB free: 2.1 billion weights of four bytes, twice as many of two."""
    known = psutil.virtual_memory()._replace(available=16 * 2**30, total=32 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: known)
    memory = found()["memory"]
    assert memory.value == "16.0 GiB free of 32.0 GiB"
    assert "2.1B in fp32, 4.3B in bf16" in memory.means


def test_four_bits_are_tried_and_a_fault_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes

    assert found()["4-bit weights"].value.startswith("bitsandbytes ")

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no\nkernel")

    monkeypatch.setattr(bitsandbytes.nn, "Linear4bit", broken)
    assert found()["4-bit weights"].means == "bitsandbytes does not work here: no kernel"


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    assert "missing: no-such-package" in found()["packages"].means
    monkeypatch.setattr(doctor, "OPTIONAL", {"no_such_module": "nothing", "json": "a module without a version"})
    optional = found()
    assert optional["no_such_module"].value == "not installed"
    assert optional["json"].value == "there"
