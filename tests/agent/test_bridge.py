"""The bridge: settling, cancelling, deadlines, threads."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import Any, cast

import numpy as np
import pytest

from inferd_agent.bridge import Bridge
from inferd_runtime import Closed, DeadlineExceeded, EngineFault, Job, Overloaded

RESULT = {"y": np.zeros(1)}


class Accepting:
    """A runtime that takes jobs and does nothing with them."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.loaded = threading.Event()

    def submit(self, job: Job) -> None:
        if job.model == "full":
            raise Overloaded("full")
        self.jobs.append(job)

    def load(self, name: str) -> None:
        self.loaded.wait(5)


def bridged(**settings: Any) -> tuple[Bridge, Accepting]:
    bridge, runtime = Bridge(asyncio.get_running_loop(), **settings), Accepting()
    bridge.bind(cast(Any, runtime))
    return bridge, runtime


async def taken(runtime: Accepting, count: int) -> None:
    while len(runtime.jobs) < count:
        await asyncio.sleep(0)


async def test_a_batch_from_a_thread_wakes_every_caller() -> None:
    """Results and errors of a batch reach their own callers."""
    bridge, runtime = bridged()
    calls = [asyncio.ensure_future(bridge.infer(Job("m", {}))) for _ in range(3)]
    await taken(runtime, 3)
    runtime.jobs[0].result = runtime.jobs[2].result = RESULT
    runtime.jobs[1].error = EngineFault("broken")
    thread = threading.Thread(target=bridge.deliver, args=(runtime.jobs,))
    thread.start()
    found = await asyncio.gather(*calls, return_exceptions=True)
    thread.join()
    assert found[0] is found[2] is RESULT
    assert isinstance(found[1], EngineFault)
    assert bridge.pending == 0
    bridge.close()


class Inline(Accepting):
    """Runs what gathered when its turn comes, as an inline lane does."""

    bridge: Bridge

    def submit(self, job: Job) -> None:
        super().submit(job)
        if len(self.jobs) == 1:
            self.bridge.defer(self.run)

    def run(self) -> None:
        batch, self.jobs = self.jobs, []
        for job in batch:
            job.result = {"rows": np.full(1, len(batch))}
        self.bridge.deliver(batch)


@pytest.mark.parametrize(("is_lone", "rows"), [(True, [1, 1]), (False, [2, 2])])
async def test_a_lone_request_waits_for_no_others(is_lone: bool, rows: list[int]) -> None:
    """Where nobody else calls an inline run is over as it is submitted; otherwise those of a moment share it."""
    bridge, runtime = Bridge(asyncio.get_running_loop()), Inline()
    runtime.bridge = bridge
    bridge.bind(cast(Any, runtime))
    deadline_ns = time.monotonic_ns() + 10**9  # near enough for a timer
    jobs = [Job("m", {}, deadline_ns=deadline_ns) for _ in rows]
    found = await asyncio.gather(*(bridge.infer(job, is_lone=is_lone) for job in jobs))
    assert [int(result["rows"][0]) for result in found] == rows
    assert bridge.pending == 0
    bridge.close()


async def test_refusals_come_at_once() -> None:
    """What submit refuses is raised, and nothing is left pending."""
    bridge, _ = bridged()
    with pytest.raises(Overloaded):
        await bridge.infer(Job("full", {}))
    assert bridge.pending == 0
    bridge.close()


@pytest.mark.parametrize("how", ["fault", "late", "closed", "left"])
async def test_a_failure_lets_go_of_the_inputs_at_once(how: str) -> None:
    """Without the collector's help: they may lie in memory that their caller wants back."""
    bridge, runtime = bridged()
    array = np.zeros(1)
    seen = weakref.ref(array)

    async def call(array: np.ndarray[Any, Any]) -> None:
        job = Job("m", {"x": array}, deadline_ns=time.monotonic_ns() + (10**6 if how == "late" else 10**11))
        with pytest.raises((EngineFault, DeadlineExceeded, Closed, asyncio.CancelledError)):
            await bridge.infer(job)

    work = asyncio.ensure_future(call(array))
    del array
    await taken(runtime, 1)
    if how == "fault":
        runtime.jobs[0].error = EngineFault("broken")
        bridge.deliver(runtime.jobs)
    elif how == "closed":
        bridge.close()
    elif how == "left":
        work.cancel()
    runtime.jobs.clear()
    await work
    del work
    assert not gc.isenabled()
    assert seen() is None
    bridge.close()


async def test_a_cancelled_caller_cancels_its_job_only() -> None:
    """The job of a caller that left is marked; delivering it later harms nobody."""
    bridge, runtime = bridged()
    leaving = asyncio.ensure_future(bridge.infer(Job("m", {})))
    staying = asyncio.ensure_future(bridge.infer(Job("m", {})))
    await taken(runtime, 2)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert [job.is_cancelled for job in runtime.jobs] == [True, False]
    for job in runtime.jobs:
        job.result = RESULT
    bridge.deliver(runtime.jobs)
    assert await staying is RESULT
    bridge.close()


@pytest.mark.parametrize("left_ns", [5_000_000, -3_000_000_000])
async def test_no_wait_without_end(left_ns: int) -> None:
    """A job that the runtime never answers is answered at its deadline; its late delivery is dropped."""
    bridge, runtime = bridged()
    with pytest.raises(DeadlineExceeded):
        await bridge.infer(Job("m", {}, deadline_ns=time.monotonic_ns() + left_ns))
    runtime.jobs[0].result = RESULT
    bridge.deliver(runtime.jobs)
    assert bridge.pending == 0
    bridge.close()


async def test_far_deadlines_are_swept() -> None:
    """A deadline that was far when the job came is noticed by the sweep."""
    bridge, runtime = bridged()
    job = Job("m", {}, deadline_ns=time.monotonic_ns() + 3_600_000_000_000)
    call = asyncio.ensure_future(bridge.infer(job))
    await taken(runtime, 1)
    job.deadline_ns = time.monotonic_ns() - 1_000_000_000
    with pytest.raises(DeadlineExceeded):
        await call
    bridge.close()


async def test_control_calls_have_a_time_limit() -> None:
    """A load that takes too long is answered, and goes on."""
    bridge, runtime = bridged(control_timeout_s=0.05)
    with pytest.raises(DeadlineExceeded, match="goes on"):
        await bridge.load("m")
    runtime.loaded.set()
    bridge.close()


async def test_closing_answers_whoever_waits() -> None:
    """Nobody hangs when the bridge closes; delivering to a closed bridge is harmless."""
    bridge, runtime = bridged()
    call = asyncio.ensure_future(bridge.infer(Job("m", {})))
    await taken(runtime, 1)
    bridge.close()
    with pytest.raises(Closed):
        await call
    runtime.jobs[0].result = RESULT
    bridge.deliver(runtime.jobs)
