"""What every test has: an own workspace, no network, no state of the person who runs it."""

from pathlib import Path

import pytest

from feedback import workspace as workspaces
from feedback.workspace import Workspace


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets-cache"))
    monkeypatch.delenv(workspaces.ENVIRONMENT_VARIABLE, raising=False)
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
