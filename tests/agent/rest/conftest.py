"""One front end for all tests of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.rest.serving import Serving, write_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder."""
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Serving]:
    """A front end with generous limits."""
    serving = Serving(tmp_path_factory.mktemp("r"), models, max_body_bytes=4 << 20)
    serving.start()
    yield serving
    serving.stop()


@pytest.fixture
def patience(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body of a refused request may come late: nothing depends on how quick this test is."""
    monkeypatch.setitem(served.app._server._settings, "lingering_time", 60.0)


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Serving]]:
    """Starts a front end of the test's own, with limits of its own, for a model folder."""
    started = []

    def start(models: Path, **limits: Any) -> Serving:
        serving = Serving(tmp_path_factory.mktemp("r"), models, **limits)
        serving.start()
        started.append(serving)
        return serving

    yield start
    for serving in started:
        if not serving._loop.is_closed():
            serving.stop()
