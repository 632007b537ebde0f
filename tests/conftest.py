"""What every test gets: our own packages may not block the event loop, and a test's files stay in its own folder."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

from inferd_runtime.engines.quiet import silence_telemetry


@pytest.fixture(autouse=True, scope="session")
def loop_is_never_blocked() -> Iterator[BlockBuster]:
    """A blocking call made by our packages on a running event loop raises `BlockingError`."""
    with blockbuster_ctx(scanned_modules=["inferd", "inferd_agent", "inferd_runtime"]) as detector:
        yield detector


@pytest.fixture(autouse=True, scope="module")
def garbage_is_collected() -> Iterator[None]:
    """What the tests of a module leave in cycles is freed after them, and not in the midst of somebody else's test."""
    yield
    gc.collect()


@pytest.fixture(autouse=True, scope="session")
def private_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's own configuration, state or sockets."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
            folder = home / name.removeprefix("XDG_").lower()
            folder.mkdir(mode=0o700)
            patch.setenv(name, str(folder))
        for name in ("INFERD_URL", "INFERD_TOKEN", "INFERD_CA"):
            patch.delenv(name, raising=False)
        yield home


def pytest_configure(config: pytest.Config) -> None:
    """Tests that call ONNX Runtime directly report to nobody either. Hypothesis has no deadlines, which a busy machine
    would break, and draws the same examples in each run; `--hypothesis-profile=default` draws new ones."""
    silence_telemetry()
    settings.load_profile("ci")


def pytest_collection_finish(session: pytest.Session) -> None:
    """From here on the collector runs when we say so, over what tests make and not over all modules."""
    gc.disable()
    gc.collect()
    gc.freeze()


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    """Tests run on the loop that the daemon runs on."""
    return {"uvloop": uvloop.new_event_loop}
