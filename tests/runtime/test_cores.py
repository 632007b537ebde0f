"""Real models on the machine's own cores: as many threads run as there are permits, and the wall clock may step."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from inferd_runtime import Job, Runtime, RuntimeOptions
from tests import onnx_models
from tests.runtime.scheduling.sessions import Receiver

WAIT_S = 30.0
SAMPLES = 60


@contextlib.contextmanager
def running(
    folder: Path, defer: Callable[[Callable[[], None]], object] | None = None, **more: object
) -> Iterator[tuple[Runtime, Receiver]]:
    """A runtime that serves `folder` and measures nothing."""
    receiver = Receiver()
    words: dict[str, object] = {"watch": False, "planning": "off", "governor": "fixed", **more}
    options = RuntimeOptions((folder / "models",), folder / "cache", **words)  # type: ignore[arg-type]
    runtime = Runtime(options, deliver=receiver, defer=defer, settle_s=0.0)
    runtime.start()
    try:
        assert runtime.wait_loaded(WAIT_S)
        yield runtime, receiver
    finally:
        runtime.close()


def count_runnable() -> int:
    """Threads of this process that run or would if they could, but for the one that asks."""
    own, count = threading.get_native_id(), 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it ended
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            count += state == "R" and int(task.name) != own
    return count


def test_no_more_threads_run_than_there_are_cores(tmp_path: Path) -> None:
    """Three busy models in both engines, with six threads between them: most of the time no more want a CPU than
    there are permits, and one that is on its way from one batch to the next."""
    shapes = {"broad": (2, 1, "onnxruntime"), "deep": (1, 2, "onnxruntime"), "other": (2, 1, "openvino")}
    for name, (streams, threads, engine) in shapes.items():
        onnx_models.slow(tmp_path / "models" / name / "1" / "model.onnx", layers=32, width=512)
        (tmp_path / "models" / name / "model.toml").write_text(
            f'streams = {streams}\nthreads = {threads}\nengine = "{engine}"\nbatch = 1\n'
        )
    with running(tmp_path, cores=2) as (runtime, _):
        permits = runtime.figures().core_size
        seen: list[int] = []
        sent = 0
        while len(seen) < SAMPLES:
            while runtime.figures().queued_jobs < 6:
                for name in shapes:
                    runtime.submit(Job(name, {"x": np.zeros((1, 512), np.float32)}))
                    sent += 1
            seen.append(count_runnable())
        assert runtime.drain(WAIT_S)
        assert sum(one.success_count for one in runtime.stats()) == sent
    assert 1 <= statistics.median(seen) <= permits + 1


def test_a_busy_submitting_thread_costs_a_core(tmp_path: Path) -> None:
    """While inline runs keep their thread busy one core less is left for batches, and all again afterwards."""
    onnx_models.slow(tmp_path / "models/m/1/model.onnx", layers=4, width=512)
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
        pause = threading.Event()
        while runtime.figures().core_used:
            assert time.monotonic() < end + WAIT_S
            pause.wait(0.02)


@pytest.mark.parametrize("step_s", [-1e8, 1e8])
def test_the_wall_clock_may_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float) -> None:
    """Three years back or ahead: deadlines hold, the model loads again, and the load is still seen."""
    onnx_models.mlp(tmp_path / "models" / "mlp" / "1" / "model.onnx")
    x = np.ones((1, 64), np.float32)
    with running(tmp_path) as (runtime, receiver):
        real_ns = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + round(step_s * 1e9))
        monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9)
        for _ in range(10):
            runtime.submit(Job("mlp", {"x": x}, deadline_ns=time.monotonic_ns() + round(WAIT_S * 1e9)))
        runtime.load("mlp")
        runtime.submit(Job("mlp", {"x": x}))
        for job in receiver.wait(11):
            assert job.result is not None, job.error
        assert runtime.drain(WAIT_S)
        assert runtime.figures().host_busy_cores is not None
