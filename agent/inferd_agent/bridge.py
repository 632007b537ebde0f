"""The only door between the event loop and the runtime's threads.

Jobs go in on the loop's thread and come back through `deliver`, which settles everything that finished in one wake-up
of the loop. Nobody waits here without a deadline: a job that the runtime does not answer in time is answered by us, and
a caller that leaves cancels its job. Blocking control calls run on a small pool of their own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd_agent.arrivals import Arrivals
from inferd_runtime import Closed, DeadlineExceeded, InferdError

if TYPE_CHECKING:
    from inferd_runtime import Job, Runtime

Result = dict[str, np.ndarray[Any, Any]]
Done = Callable[[Result | None, Exception | None], None]

# Deadlines nearer than this get a timer of their own; the others are found by the sweep.
_NEAR_NS = 2_000_000_000
_SWEEP_S = 0.5
_DEFAULT_WAIT_NS = 600_000_000_000


class Bridge:
    """Made on the loop, given to the runtime as `deliver` and `defer`, then bound to that runtime."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, control_timeout_s: float = 300.0) -> None:
        self._loop = loop
        self.arrivals = Arrivals(loop)
        self._thread = threading.get_ident()
        self._control_timeout_s = control_timeout_s
        self._runtime: Runtime | None = None
        self._finished: deque[Sequence[Job]] = deque()
        self._is_woken = False
        self._pending: dict[Job, asyncio.TimerHandle | None] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._turns: list[Callable[[], None]] | None = None  # of the job that is submitted, where it is run at once
        self._control = ThreadPoolExecutor(2, thread_name_prefix="control")

    @property
    def runtime(self) -> Runtime:
        """The runtime behind this bridge."""
        if self._runtime is None:
            raise Closed("the runtime is not there yet")
        return self._runtime

    @property
    def pending(self) -> int:
        """Jobs that somebody on the loop waits for."""
        return len(self._pending)

    def bind(self, runtime: Runtime) -> None:
        """Say which runtime answers."""
        self._runtime = runtime

    def defer(self, act: Callable[[], None]) -> object:
        """Run `act` soon on the loop, for the runtime's inline batches; `arrivals` are waited for."""
        if self._turns is not None:
            self._turns.append(act)
            return None
        return self._loop.call_soon(self.arrivals.after, act)

    # Jobs

    def submit(self, job: Job, done: Done, *, is_lone: bool = False) -> None:
        """Submit; `done(result, None)` or `done(None, error)` follows once, on the loop, unless the job is abandoned.

        `is_lone`: no other request is on its way, so an inline run waits for none, and `done` may be called in here.
        Raises what `Runtime.submit` refuses the job with. `done` must not raise.
        """
        job.context = done
        if is_lone:
            self._turns = []
        try:
            self.runtime.submit(job)
        finally:
            turns, self._turns = self._turns, None
        timer = None
        deadline_ns = job.deadline_ns
        if deadline_ns is not None:
            left_ns = deadline_ns - time.monotonic_ns()
            if left_ns < _NEAR_NS:
                timer = self._loop.call_later(max(left_ns, 0) / 1e9, self._give_up, job)
        self._pending[job] = timer
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)
        for act in turns or ():
            act()

    def abandon(self, job: Job) -> None:
        """The caller left: nobody is told how the job ends."""
        job.cancel()
        self._take_done(job)

    async def infer(self, job: Job, *, is_lone: bool = False) -> Result:
        """`submit` and wait. Raises the job's error, or what `Runtime.submit` refuses it with."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self.submit(job, partial(_tell, future), is_lone=is_lone)
        try:
            return await future
        except asyncio.CancelledError:
            self.abandon(job)
            raise
        finally:
            # The trace of an error that is raised here holds this frame, and the future the error: inputs, perhaps a
            # caller's memory, would be kept until the collector comes.
            del future

    def deliver(self, jobs: Sequence[Job]) -> None:
        """Take settled jobs from any thread; their callers wake up together. Never raises."""
        if threading.get_ident() == self._thread:
            self._settle(jobs)
            return
        self._finished.append(jobs)
        if self._is_woken:
            return
        self._is_woken = True
        try:
            self._loop.call_soon_threadsafe(self._settle_finished)
        except RuntimeError:  # the loop is closed, so nobody waits any more
            self._finished.clear()

    def _settle_finished(self) -> None:
        # Cleared first: whatever is appended after this wakes the loop again.
        self._is_woken = False
        finished = self._finished
        while finished:
            self._settle(finished.popleft())

    def _settle(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            done = self._take_done(job)
            # Not kept by the job, since callers' frames hold the job, and the error's trace holds those.
            error, job.error = job.error, None
            if done is None:  # the caller left, or its deadline passed
                continue
            if job.result is not None:
                done(job.result, None)
            else:
                done(None, error or InferdError("the job was settled without a result"))

    def _give_up(self, job: Job) -> None:
        """Answer a late job's caller; the runtime drops the job itself when it comes to it."""
        done = self._take_done(job)
        if done is not None:
            done(None, DeadlineExceeded("the deadline passed before the answer was there"))

    def _take_done(self, job: Job) -> Done | None:
        """Whom to tell, once; only touched on the loop."""
        done: Done | None = job.context
        job.context = None
        timer = self._pending.pop(job, None)
        if timer is not None:
            timer.cancel()
        return done

    def _sweep(self) -> None:
        """Answer the callers whose deadline passed a while ago; the runtime should have done so."""
        self._sweeper = None
        late_ns = time.monotonic_ns() - int(_SWEEP_S * 1e9)
        for job in tuple(self._pending):
            deadline_ns = job.deadline_ns
            if deadline_ns is None:
                deadline_ns = (job.enqueued_ns or late_ns) + _DEFAULT_WAIT_NS
            if deadline_ns < late_ns:
                self._give_up(job)
        if self._pending:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    # Control

    async def load(self, name: str) -> None:
        """`Runtime.load` off the loop. DeadlineExceeded leaves it going on in the background."""
        await self._call(self.runtime.load, name)

    async def unload(self, name: str) -> None:
        """`Runtime.unload` off the loop."""
        await self._call(self.runtime.unload, name)

    async def _call(self, act: Callable[[str], None], name: str) -> None:
        try:
            async with asyncio.timeout(self._control_timeout_s):
                await self._loop.run_in_executor(self._control, act, name)
        except TimeoutError:
            raise DeadlineExceeded(
                f"still at it after {self._control_timeout_s:g} s; it goes on, ask the index how it ends"
            ) from None

    def close(self) -> None:
        """Fail whoever still waits and free the pool; idempotent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for job in tuple(self._pending):
            done = self._take_done(job)
            if done is not None:
                done(None, Closed("the daemon is shutting down"))
        self._control.shutdown(wait=False, cancel_futures=True)


def _tell(future: asyncio.Future[Result], result: Result | None, error: Exception | None) -> None:
    if future.done():
        return
    if result is not None:
        future.set_result(result)
    elif error is not None:
        future.set_exception(error)
