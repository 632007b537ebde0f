"""Sessions, lanes and receivers that the scheduling tests control to the letter: gates instead of sleeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from inferd_runtime.job import Array, Job
from inferd_runtime.scheduling.budget import ByteBudget, CoreBudget
from inferd_runtime.scheduling.inline import Defer
from inferd_runtime.scheduling.lane import Lane
from inferd_runtime.scheduling.queue import QueueLimits
from inferd_runtime.spec import ModelSpec, Plan
from inferd_runtime.stats import ModelStats
from inferd_runtime.tensor import TensorSpec

F32 = np.dtype(np.float32)
WAIT_S = 20.0
PLAN = Plan("fake", "cpu", "", "auto", streams=1, threads=1, batch=16, inline=False, run_us=10.0, reason="")
SPEC = ModelSpec(
    (TensorSpec("x", F32, (-1, 2)),), (TensorSpec("double", F32, (-1, 2)), TensorSpec("total", F32, (-1, 1))), 64
)
FREE = ModelSpec((TensorSpec("x", F32, (-1, -1)),), SPEC.outputs, 64)
SINGLE = ModelSpec((TensorSpec("x", F32, (-1, 2)),), SPEC.outputs, 0)


class DoublingSession:
    """double = 2x, total = row sums. Waits for `gate` in every run; `behave` may raise or replace the outputs."""

    inputs = SPEC.inputs
    outputs = SPEC.outputs

    def __init__(self, behave: Callable[[Array, list[Array]], list[Array]] | None = None) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.batches: list[Array] = []
        self.asked: list[tuple[int, ...]] = []
        self.given: list[Array] = []
        self.is_closed = False
        self.running = 0
        self.most_running = 0
        self._behave = behave
        self._lock = threading.Lock()

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        assert not self.is_closed
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.given.append(inputs[0])
            self.batches.append(inputs[0].copy())
            self.asked.append(tuple(outputs))
        self.entered.release()
        try:
            assert self.gate.wait(WAIT_S)
            x = inputs[0]
            answers = [x * 2, x.sum(axis=1, keepdims=True)]
            if self._behave:
                answers = self._behave(x, answers)
            return [answers[i] for i in outputs] if len(answers) == 2 else answers
        finally:
            with self._lock:
                self.running -= 1

    def wait_entered(self) -> None:
        """Until another run has begun."""
        assert self.entered.acquire(timeout=WAIT_S)

    def close(self) -> None:
        assert not self.running
        self.is_closed = True


class Receiver:
    """What the bridge is to the runtime: takes settled jobs, and objects to any that comes twice or unsettled."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.calls: list[list[Job]] = []
        self._seen: set[int] = set()
        self._more = threading.Condition()

    def __call__(self, jobs: Sequence[Job]) -> None:
        with self._more:
            for job in jobs:
                assert id(job) not in self._seen, "delivered twice"
                assert (job.result is None) != (job.error is None), "not settled once"
                assert job.settled_ns >= job.enqueued_ns > 0
                self._seen.add(id(job))
            self.jobs.extend(jobs)
            self.calls.append(list(jobs))
            self._more.notify_all()

    def wait(self, count: int) -> list[Job]:
        """Until `count` jobs have come."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.jobs) >= count, WAIT_S), f"{len(self.jobs)} of {count} came"
            return self.jobs


def eventually(claim: Callable[[], bool]) -> None:
    """Until the claim holds, where nothing tells when."""
    end_s, pause = time.monotonic() + WAIT_S, threading.Event()
    while not claim():
        assert time.monotonic() < end_s, "it never came to be"
        pause.wait(0.001)


def new_workers(before: Collection[threading.Thread]) -> list[threading.Thread]:
    """The lanes' threads that were not there before; those of earlier tests may be ending still."""
    return [thread for thread in set(threading.enumerate()) - set(before) if thread.name.startswith("model:")]


def make_lane(
    session: DoublingSession,
    deliver: Callable[[Sequence[Job]], None],
    *,
    spec: ModelSpec = SPEC,
    budget: CoreBudget | None = None,
    max_jobs: int = 1000,
    max_bytes: int = 1 << 30,
    held: ByteBudget | None = None,
    stats: ModelStats | None = None,
    defer: Defer | None = None,
    idle_session: DoublingSession | None = None,
    ends_runs: bool = False,
    clock: Callable[[], int] = time.monotonic_ns,
    **plan: object,
) -> Lane:
    """A lane on the fake session; further words change the plan."""
    return Lane(
        "model",
        1,
        spec,
        session,
        replace(PLAN, inline=defer is not None, **plan),  # type: ignore[arg-type]
        budget=budget or CoreBudget(8),
        queue_limits=QueueLimits(max_jobs, held or ByteBudget(max_bytes)),
        stats=stats or ModelStats("model", 1),
        deliver=deliver,
        defer=defer,
        idle_session=idle_session,
        ends_runs=ends_runs,
        clock=clock,
    )


def rows(*values: float, width: int = 2) -> Array:
    """One row of equal numbers for each value, read-only as wire data is."""
    array = np.repeat(np.array(values, np.float32)[:, None], width, axis=1)
    array.flags.writeable = False
    return array


def job(*values: float, width: int = 2, **more: object) -> Job:
    """A job of `rows(*values)`."""
    return Job("model", {"x": rows(*values, width=width)}, **more)  # type: ignore[arg-type]


def assert_right(done: Job) -> None:
    """The answer is this job's own."""
    assert done.error is None, done.error
    assert done.result is not None
    x = done.inputs["x"]
    expected = {"double": x * 2, "total": x.sum(axis=1, keepdims=True)}
    assert set(done.result) == set(done.outputs or expected)
    for name, array in done.result.items():
        np.testing.assert_array_equal(array, expected[name])
