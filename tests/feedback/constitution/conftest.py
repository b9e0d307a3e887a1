"""Endpoints on loopback, and no wait longer than a test needs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feedback.constitution import transport
from feedback.constitution.endpoint import Endpoint
from feedback.workspace import EndpointSettings
from tests.endpoints import Served, transformers_serve


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_WAIT", 0.01)


@pytest.fixture
def endpoint(tmp_path: Path) -> Callable[..., Endpoint]:
    """The model "m" at an address; equal cache folders share what they know."""

    def make(url: str, cache: Path = tmp_path / "cache", model: str = "m", **settings: object) -> Endpoint:
        return Endpoint(model, EndpointSettings.model_validate({"url": url, **settings}), cache)

    return make


@pytest.fixture(scope="session")
def transformers_server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with transformers_serve(tiny_model, tmp_path_factory.mktemp("served") / "tiny") as served:
        yield served
