"""A repository on a stage: real files, a fake clock, and versions that are served by nothing but a note of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import onnx

from inferd_runtime.errors import Closed, LoadFailed
from inferd_runtime.job import Job
from inferd_runtime.repository.layout import VersionFiles
from inferd_runtime.repository.repository import Repository
from inferd_runtime.repository.settings import ModelSettings
from inferd_runtime.spec import ModelSpec, Plan
from inferd_runtime.tensor import TensorSpec
from tests import onnx_models

RESCAN_S = 30.0
PATIENCE_S = 60.0


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeServed:
    """What the façade would serve; remembers what happened to it."""

    def __init__(self, files: VersionFiles) -> None:
        graph = onnx.load(files.variants[""]).graph
        self.width = graph.input[0].type.tensor_type.shape.dim[-1].dim_value
        x, y = (
            TensorSpec(tensors[0].name, onnx_models.DATATYPES["FP32"], (-1, self.width))
            for tensors in (graph.input, graph.output)
        )
        self.spec = ModelSpec((x,), (y,), 64)
        self.plan = Plan("fake", "cpu", "", "auto", 1, 1, 16, False, 1.0, "there is no other")
        self.may_drain = threading.Event()
        self.may_drain.set()
        self.is_drained = False
        self.is_closed = False
        self._lock = threading.Lock()
        self._running = 0
        self.served = 0

    def submit(self, job: Job) -> None:
        """Settle the job at once; a job on something closed is a fault of the repository."""
        with self._lock:
            if self.is_drained:
                raise Closed("drained")
            assert not self.is_closed
            self.served += 1

    def drain(self, timeout_s: float) -> bool:
        if not self.may_drain.wait(timeout_s):
            return False
        with self._lock:
            self.is_drained = True
        return True

    def close(self) -> None:
        with self._lock:
            self.is_closed = True


class Opener:
    """`open_version`: opens everything, except what a test forbids."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, int]] = []
        self.all: list[FakeServed] = []
        self.fault: Exception | None = None
        self.faulty_widths: set[int] = set()
        self.before: Callable[[VersionFiles], object] = lambda files: None

    def __call__(self, files: VersionFiles, settings: ModelSettings, digest: str) -> FakeServed:
        self.opened.append((files.name, files.version))
        self.before(files)
        if self.fault is not None:
            raise self.fault
        served = FakeServed(files)
        if served.width in self.faulty_widths:
            raise LoadFailed("this width is not liked")
        self.all.append(served)
        return served


class Stage:
    """A repository that nothing drives but the test."""

    def __init__(self, folder: Path, *, load: str = "all", roots: tuple[str, ...] = ("models",)) -> None:
        self.roots = [folder / root for root in roots]
        self.root = self.roots[0]
        self.root.mkdir(exist_ok=True)
        self.cache = folder / "cache"
        self.clock = Clock()
        self.opener = Opener()
        self.load = load
        self.repository = self.build()

    def build(self) -> Repository:
        """A repository as a daemon that starts now would have it."""
        return Repository(
            self.roots,
            open_version=self.opener,
            cache_dir=self.cache,
            watch=False,
            load=self.load,
            rescan_s=RESCAN_S,
            drain_s=5.0,
            clock=self.clock,
            wall=lambda: 0.0,  # no file is old: only lying still counts
        )

    def install(self, name: str, version: int = 1, width: int = 4, root: int = 0) -> Path:
        """Put a real model where it belongs; models of different width are different content."""
        return onnx_models.identity(self.roots[root] / name / str(version) / "model.onnx", shape=("N", width))

    def settings(self, name: str, text: str) -> None:
        """Write a model's model.toml."""
        (self.root / name / "model.toml").write_text(text)

    def look(self) -> float:
        """One step of the loader."""
        return self.repository.step()

    def settle(self) -> None:
        """Steps and time, until there is nothing more to do."""
        deadline = time.monotonic() + PATIENCE_S
        self.look()
        while time.monotonic() < deadline:
            self.clock.now += 1
            if self.look() == RESCAN_S:
                return
        raise AssertionError("the repository does not come to rest")

    def order(self, act: Callable[[], None]) -> None:
        """Do what blocks (load, unload) while the loader steps."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                act()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        deadline = time.monotonic() + PATIENCE_S
        while thread.is_alive() and time.monotonic() < deadline:
            self.look()
            self.clock.now += 1
            thread.join(0.002)
        assert not thread.is_alive(), "the order is never over"
        if failed:
            raise failed[0]

    def states(self, name: str) -> dict[int, str]:
        """State of each version."""
        return {d.version: d.state.value for d in self.repository.models() if d.name == name}
