"""The repository alive: its own threads, the real clock, real changes on disk, real engines."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import watchfiles

from inferd_runtime.engines import Session
from inferd_runtime.engines.discover import open_engines
from inferd_runtime.errors import Closed, LoadFailed
from inferd_runtime.job import Job
from inferd_runtime.planning import Ground, Planned, plan_version
from inferd_runtime.repository import repository as repository_module
from inferd_runtime.repository import watch as watch_module
from inferd_runtime.repository.layout import VersionFiles
from inferd_runtime.repository.repository import Repository
from inferd_runtime.repository.settings import ModelSettings
from inferd_runtime.repository.watch import Watcher
from inferd_runtime.spec import ModelSpec, Plan, State
from tests import onnx_models
from tests.runtime.repository.stage import Opener


def eventually(claim: Callable[[], bool], timeout_s: float = 45.0) -> None:
    """Wait until a claim holds."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not claim():
        assert time.monotonic() < deadline, "it never came to be"
        pause.wait(0.01)


class RealServed:
    """A version served by its own session, one run at a time."""

    def __init__(self, planned: Planned) -> None:
        self.spec: ModelSpec = planned.spec
        self.plan: Plan = planned.plan
        self.session: Session = planned.session
        self._lock = threading.Lock()
        self._is_closed = False

    def submit(self, job: Job) -> None:
        with self._lock:
            if self._is_closed:
                raise Closed("closed")
            arrays = self.session.run(list(job.inputs.values()), range(len(self.spec.outputs)))
            job.result = {spec.name: array for spec, array in zip(self.spec.outputs, arrays, strict=True)}

    def drain(self, timeout_s: float) -> bool:
        with self._lock:
            self._is_closed = True
        return True

    def close(self) -> None:
        self.drain(0)
        self.session.close()


def open_real(files: VersionFiles, settings: ModelSettings, digest: str) -> RealServed:
    """Plan and open for good."""
    engines, missing = open_engines()
    return RealServed(plan_version(Ground(engines, 2, missing), files.variants, settings.wishes()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The repository's root, not there yet."""
    return tmp_path / "models"


@pytest.fixture
def live(tmp_path: Path, root: Path) -> Iterator[Repository]:
    """A repository that looks after itself and hears of changes by inotify alone."""
    repository = Repository(
        [root], open_version=open_real, cache_dir=tmp_path / "cache", settle_s=0.1, rescan_s=3600, drain_s=5
    )
    yield repository
    repository.close()


def answer(repository: Repository, name: str) -> np.ndarray:
    """What the served model says to a row of ones."""
    served = repository.get(name)
    job = Job(name, {spec.name: np.ones((1, *spec.shape[1:]), spec.dtype) for spec in served.spec.inputs})
    served.submit(job)
    assert job.result is not None
    return next(iter(job.result.values()))


def test_models_come_change_and_go_by_themselves(live: Repository, root: Path, tmp_path: Path) -> None:
    """Added, changed and removed files, and a root that comes later, are followed without being asked."""
    live.start()
    assert live.wait_loaded(30)
    assert live.models() == ()
    root.mkdir()
    onnx_models.identity(root / "a/1/model.onnx", shape=("N", 3))
    onnx_models.mlp(root / "b.onnx")
    (root / "bad.onnx").write_bytes(b"garbage")
    settled = {"a": State.READY, "b": State.READY, "bad": State.FAILED}
    eventually(lambda: {d.name: d.state for d in live.models()} == settled)
    assert answer(live, "a").tolist() == [[1, 1, 1]]
    assert answer(live, "b").shape == (1, 10)
    assert live.describe("b").plan is not None
    new = onnx_models.identity(tmp_path / "new.onnx", shape=("N", 5))
    new.replace(root / "a/1/model.onnx")
    eventually(lambda: live.get("a").spec.inputs[0].shape == (-1, 5))
    (root / "a/model.toml").write_text("max_batch = 7\n")
    eventually(lambda: live.get("a").spec.max_batch == 7)
    shutil.rmtree(root / "a")
    (root / "bad.onnx").unlink()
    eventually(lambda: [d.name for d in live.models()] == ["b"])
    live.unload("b")
    live.load("b")
    assert answer(live, "b").shape == (1, 10)
    shutil.rmtree(root)
    eventually(lambda: live.models() == ())
    onnx_models.mlp(root / "again/1/model.onnx")
    eventually(lambda: live.is_ready() and bool(live.models()))


def test_a_slow_copy_is_taken_once_and_whole(root: Path, tmp_path: Path) -> None:
    """A file that grows while the watch is on is opened only when it is complete, and never failed before."""
    data = onnx_models.mlp(tmp_path / "source.onnx").read_bytes()
    root.mkdir()
    opener = Opener()
    live = Repository([root], open_version=opener, cache_dir=tmp_path / "cache", settle_s=3.0, rescan_s=3600)
    live.start()
    with (root / "m.onnx").open("wb", buffering=0) as file:
        for start in range(0, len(data), len(data) // 20 + 1):
            file.write(data[start : start + len(data) // 20 + 1])
            assert all(d.state is State.UNLOADED for d in live.models())
            threading.Event().wait(0.02)
    eventually(lambda: bool(live.models()) and live.models()[0].state is State.READY)
    assert opener.opened == [("m", 1)]
    live.close()


def test_a_rescan_finds_what_no_watch_tells(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the watch tells nothing the periodic look finds changes all the same."""
    monkeypatch.setattr(Watcher, "start", lambda self: None)
    opener = Opener()
    repository = Repository([root], open_version=opener, cache_dir=tmp_path / "c", settle_s=0.05, rescan_s=0.05)
    repository.start()
    onnx_models.identity(root / "m.onnx")
    eventually(lambda: opener.opened == [("m", 1)])
    repository.close()
    assert opener.all[0].is_closed


def test_unwatched_folders_are_looked_at_when_asked(tmp_path: Path, root: Path) -> None:
    """With watch=False the first look loads what is there; what comes later waits for a request to load."""
    onnx_models.identity(root / "first.onnx")
    opener = Opener()
    repository = Repository(
        [root], open_version=opener, cache_dir=tmp_path / "c", watch=False, settle_s=0.05, rescan_s=0.1
    )
    repository.start()
    eventually(lambda: opener.opened == [("first", 1)])
    onnx_models.identity(root / "later.onnx")
    threading.Event().wait(0.5)
    assert opener.opened == [("first", 1)]
    repository.load("later")
    assert opener.opened == [("first", 1), ("later", 1)]
    repository.close()


def test_where_watching_fails_folders_are_looked_through(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No inotify (its limits are reached, say) means looking more often, not missing changes."""

    def fail(*roots: Path, **options: object) -> Iterator[set[tuple[watchfiles.Change, str]]]:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(watch_module, "watch", fail)
    monkeypatch.setattr(repository_module, "POLL_S", 0.05)
    root.mkdir()
    opener = Opener()
    repository = Repository([root], open_version=opener, cache_dir=tmp_path / "c", settle_s=0.05, rescan_s=3600)
    repository.start()
    assert repository.wait_loaded(30)
    onnx_models.identity(root / "m.onnx")
    eventually(lambda: opener.opened == [("m", 1)])
    repository.close()


def test_a_change_while_the_watch_is_set_up_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after the roots were seen and before they are watched is looked for as well."""
    real, is_made, told = watch_module.watch, threading.Event(), threading.Event()

    def late(*roots: Path, **options: Any) -> Iterator[set[tuple[watchfiles.Change, str]]]:
        (tmp_path / "m.onnx").write_bytes(b"early")
        is_made.set()
        return real(*roots, **options)

    monkeypatch.setattr(watch_module, "watch", late)
    watcher = Watcher([tmp_path], lambda: told.set() if is_made.is_set() else None, recheck_s=0.1)
    watcher.start()
    assert told.wait(30)
    watcher.stop()


def test_the_watch_stops_at_once(tmp_path: Path) -> None:
    """Stopping waits for no next look, whether roots exist or not, and whether it ever began."""
    for roots in ([tmp_path], [tmp_path / "none"]):
        watcher = Watcher(roots, lambda: None, recheck_s=600)
        watcher.start()
        began = time.monotonic()
        watcher.stop()
        watcher.stop()
        assert time.monotonic() - began < 30
    Watcher([tmp_path], lambda: None).stop()


def test_loading_in_the_background_blocks_nobody(tmp_path: Path, root: Path) -> None:
    """While a version opens slowly, start has returned, others are told LOADING, and close gives up waiting for it."""
    opener = Opener()
    opening, go_on = threading.Event(), threading.Event()
    opener.before = lambda files: opening.set() or go_on.wait(60)
    onnx_models.identity(root / "m.onnx")
    repository = Repository([root], open_version=opener, cache_dir=tmp_path / "c", settle_s=0.01)
    repository.start()
    assert opening.wait(30)
    assert repository.describe("m").state is State.LOADING
    assert not repository.is_ready()
    assert not repository.wait_loaded(0)
    with pytest.raises(LoadFailed, match="it goes on"):
        repository.load("m", timeout_s=0.05)
    assert len(list((tmp_path / "c/loading").glob("*.json"))) == 1
    threading.Timer(0.2, go_on.set).start()
    repository.close()
    assert opener.all[0].is_closed
    assert list((tmp_path / "c/loading").glob("*.json")) == []
