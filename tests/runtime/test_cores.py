"""Real models on the machine's own cores: as many threads run as there are permits, and the wall clock may step."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd_runtime import Job, Runtime, RuntimeOptions
from inferd_runtime.engines import Engine, Session, SessionOptions
from inferd_runtime.engines.discover import open_engines
from inferd_runtime.job import Array
from tests import onnx_models
from tests.runtime.scheduling.sessions import Receiver, eventually

two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
WAIT_S = 30.0
REQUESTS = 60


@contextlib.contextmanager
def running(
    folder: Path,
    defer: Callable[[Callable[[], None]], object] | None = None,
    engines: Mapping[str, Engine] | None = None,
    **more: object,
) -> Iterator[tuple[Runtime, Receiver]]:
    """A runtime that serves `folder` and measures nothing."""
    receiver = Receiver()
    words: dict[str, object] = {"watch": False, "planning": "off", "governor": "fixed", **more}
    options = RuntimeOptions((folder / "models",), folder / "cache", **words)  # type: ignore[arg-type]
    runtime = Runtime(options, deliver=receiver, defer=defer, engines=engines, settle_s=0.0)
    runtime.start()
    try:
        assert runtime.wait_loaded(WAIT_S)
        yield runtime, receiver
    finally:
        runtime.close()


class Gauge:
    """How many threads the runs of all sessions have now, and had at most."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def running(self, threads: int) -> Iterator[None]:
        with self._lock:
            self._now += threads
            self.most = max(self.most, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= threads


class GaugedSession:
    """A session whose runs are counted, with its threads."""

    def __init__(self, session: Session, threads: int, gauge: Gauge) -> None:
        self._session, self._threads, self._gauge = session, threads, gauge
        self.inputs, self.outputs, self.batch_symbols = session.inputs, session.outputs, session.batch_symbols
        self.close = session.close

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        with self._gauge.running(self._threads):
            return self._session.run(inputs, outputs)


class GaugedEngine:
    """An engine whose sessions are counted; else it is the engine itself."""

    def __init__(self, engine: Engine, gauge: Gauge) -> None:
        self._engine, self._gauge = engine, gauge

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def open(self, path: Path, options: SessionOptions) -> Session:
        return GaugedSession(self._engine.open(path, options), options.threads, self._gauge)


def install(folder: Path, shapes: dict[str, tuple[int, int, str]]) -> None:
    """A model for each name, of so many streams and threads in that engine."""
    for name, (streams, threads, engine) in shapes.items():
        onnx_models.slow(folder / "models" / name / "1" / "model.onnx", layers=32, width=512)
        (folder / "models" / name / "model.toml").write_text(
            f'streams = {streams}\nthreads = {threads}\nengine = "{engine}"\nbatch = 1\n'
        )


def keep_busy(runtime: Runtime, names: Collection[str]) -> None:
    """Many requests for each at once, until all are answered."""
    for _ in range(REQUESTS):
        for name in names:
            runtime.submit(Job(name, {"x": np.zeros((1, 512), np.float32)}))
    assert runtime.drain(WAIT_S)
    assert sum(one.success_count for one in runtime.stats()) == REQUESTS * len(names)


@two_cores
def test_no_more_threads_run_than_there_are_permits(tmp_path: Path) -> None:
    """Three busy models in both engines, with six threads between them: at no time have the runs under way more of them
    than there are permits, and at some time as many."""
    shapes = {"broad": (2, 1, "onnxruntime"), "deep": (1, 2, "onnxruntime"), "other": (2, 1, "openvino")}
    install(tmp_path, shapes)
    gauge = Gauge()
    engines = {name: GaugedEngine(engine, gauge) for name, engine in open_engines()[0].items()}
    with running(tmp_path, engines=engines, cores=2) as (runtime, _):
        gauge.most = 0  # warm-ups take no permits
        permits = runtime.figures().core_size
        keep_busy(runtime, shapes)
    assert gauge.most == permits


def test_one_permit_is_one_core(tmp_path: Path) -> None:
    """Four streams in both engines use no more CPU time than has passed, but for what hands over from one to the next.
    A machine that is busy gives less."""
    shapes = {"one": (2, 1, "onnxruntime"), "other": (2, 1, "openvino")}
    install(tmp_path, shapes)
    with running(tmp_path, cores=1) as (runtime, _):
        cpu_s, passed_s = time.process_time(), time.monotonic()
        keep_busy(runtime, shapes)
        cores = (time.process_time() - cpu_s) / (time.monotonic() - passed_s)
    assert cores < 1.5


@two_cores
def test_a_busy_submitting_thread_costs_a_core(tmp_path: Path) -> None:
    """While inline runs keep their thread busy one core less is left for batches, and all again afterwards."""
    onnx_models.slow(tmp_path / "models/m/1/model.onnx", layers=16, width=512)
    (tmp_path / "models/m/model.toml").write_text('inline = "on"\nbatch = 1\nstreams = 1\nthreads = 1\n')
    due: list[Callable[[], None]] = []
    with running(tmp_path, defer=due.append, cores=2) as (runtime, _):
        assert runtime.figures().core_used == 0
        end = time.monotonic() + WAIT_S
        while runtime.figures().core_used == 0:
            assert time.monotonic() < end
            runtime.submit(Job("m", {"x": np.zeros((1, 512), np.float32)}))
            while due:
                due.pop(0)()
        eventually(lambda: runtime.figures().core_used == 0)


@pytest.mark.parametrize("step_s", [-1e8, 1e8])
def test_the_wall_clock_may_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float) -> None:
    """Three years back or ahead: deadlines hold, the model loads again, and the load is still seen."""
    onnx_models.mlp(tmp_path / "models" / "mlp" / "1" / "model.onnx")
    x = np.ones((1, 64), np.float32)
    with running(tmp_path) as (runtime, receiver):
        real_ns = time.time_ns
        assert runtime._governor is not None
        seen = runtime._governor.latest
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + round(step_s * 1e9))
        monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9)
        for _ in range(10):
            runtime.submit(Job("mlp", {"x": x}, deadline_ns=time.monotonic_ns() + round(WAIT_S * 1e9)))
        runtime.load("mlp")
        runtime.submit(Job("mlp", {"x": x}))
        for job in receiver.wait(11):
            assert job.result is not None, job.error
        assert runtime.drain(WAIT_S)
        eventually(lambda: runtime._governor.latest is not seen)
        assert runtime.figures().host_busy_cores is not None
