"""A lane: one model version's queue with its workers, from admission to delivery.

Workers first wait for a job, then acquire the plan's permits, then take whatever has gathered by then: nothing is held
back to wait for company. An inline lane has no threads: it runs on the thread that submits, one short turn at a time,
and takes no permits, since that thread is running anyway. An accepted job is delivered exactly once, whatever happens.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from inferd_runtime.engines import Session
from inferd_runtime.errors import (
    Cancelled,
    Closed,
    DeadlineExceeded,
    EngineFault,
    InferdError,
    Overloaded,
)
from inferd_runtime.job import Job
from inferd_runtime.scheduling.admission import Admission
from inferd_runtime.scheduling.batch import Runner
from inferd_runtime.scheduling.budget import CoreBudget
from inferd_runtime.scheduling.queue import JobQueue, QueueLimits
from inferd_runtime.spec import ModelSpec, Plan
from inferd_runtime.stats import ModelStats

Deliver = Callable[[Sequence[Job]], None]
Defer = Callable[[Callable[[], None]], object]

# An inline lane lets others have the thread after this long.
INLINE_TURN_NS = 2_000_000
# How long `close` waits for a run under way, and for idle threads to end.
_RUN_WAIT_S = 30.0
_JOIN_WAIT_S = 1.0
# The part of a new measurement in the running average.
_FRESH = 0.2
_LONGEST_RETRY_S = 60.0

_log = logging.getLogger(__name__)


class Lane:
    """Serves one open session until closed; owns the session."""

    def __init__(
        self,
        name: str,
        version: int,
        spec: ModelSpec,
        session: Session,
        plan: Plan,
        *,
        budget: CoreBudget,
        queue_limits: QueueLimits,
        stats: ModelStats,
        deliver: Deliver,
        defer: Defer | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.name = name
        self.version = version
        self.spec = spec
        self.plan = plan
        self._session = session
        self._budget = budget
        self._stats = stats
        self._deliver_jobs = deliver
        self._clock = clock
        self._queue = JobQueue(queue_limits, clock)
        self._admit = Admission(spec).check
        self._batch_rows = plan.batch if spec.max_batch and plan.batch else 1
        # What a row takes in a well filled batch. Hopeful at first, as if a full batch took no longer than one row.
        self._row_ns = plan.run_us * 1000.0 / self._batch_rows
        self._defer = defer if plan.inline else None
        self._is_turn_due = False
        self._threads: list[threading.Thread] = []
        self._closing = threading.Lock()
        self._is_closed = False
        if self._defer is None:
            self._start_worker()
        else:
            self._runner = Runner(spec, session, clock)

    @property
    def waiting(self) -> int:
        """Jobs that no worker has taken yet."""
        return self._queue.waiting

    @property
    def running(self) -> int:
        return self._queue.running

    @property
    def accepted(self) -> int:
        """Jobs accepted since the lane was made."""
        return self._queue.accepted

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def is_inline(self) -> bool:
        return self._defer is not None

    def submit(self, job: Job) -> None:
        """Accept the job, to be delivered later, or raise: InvalidRequest, Overloaded, DeadlineExceeded, Cancelled,
        Closed."""
        self._admit(job)
        job.enqueued_ns = now = self._clock()
        if job.is_cancelled or job.deadline_ns is not None:
            self._check_hope(job, now)
        try:
            self._queue.put(job)
        except Overloaded:
            self._put_after_sweep(job)
        job.version = self.version
        if self._defer is not None and not self._is_turn_due:
            self._is_turn_due = True
            self._defer(self._take_turn)

    def sweep(self) -> None:
        """Answer the waiting jobs that nobody waits for, without waiting for a worker; costs little when none wait.

        An inline lane sweeps itself at its next turn, on its own thread.
        """
        if self._defer is None and self._queue.waiting:
            self._bury(self._queue.sweep())

    def stop(self) -> None:
        """Take no more; what was accepted is still served."""
        self._queue.stop()

    def drain(self, timeout_s: float) -> bool:
        """`stop`, and wait until all is delivered; False when time ran out. An inline lane needs its thread running
        meanwhile, so this is not for that thread."""
        self._queue.stop()
        return self._queue.wait_quiet(timeout_s)

    def close(self) -> None:
        """Settle what waits with Closed, let runs under way end, free the session; idempotent."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        self._bury(self._queue.close(), Closed("the model was unloaded before this request could run"))
        if self._queue.wait_quiet(_RUN_WAIT_S):
            self._session.close()
        else:
            _log.error("%s version %d: a run does not end, so its session stays open", self.name, self.version)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_JOIN_WAIT_S)

    # Admission

    def _check_hope(self, job: Job, now: int) -> None:
        """Refuse a job that nobody waits for, or that cannot be done in time behind those that wait already.

        With nothing waiting a job is always tried, so that one slow run cannot close the door for good.
        """
        if job.is_cancelled:
            self._stats.cancelled()
            raise Cancelled("the caller left before the request was queued")
        deadline = job.deadline_ns
        if deadline is None:
            return
        left = deadline - now
        if left <= 0:
            self._stats.late()
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        ahead = self._backlog_ns()
        if ahead > left:
            self._stats.late()
            raise DeadlineExceeded(
                f"the deadline is {left / 1e6:.1f} ms away, but the requests ahead take about {ahead / 1e6:.1f} ms",
                retry_after_s=self._retry_after_s(),
            )

    def _backlog_ns(self) -> float:
        """About how long the waiting jobs take, rather too little than too much."""
        return self._queue.waiting_rows * self._row_ns / (1 if self._defer else self.plan.streams)

    def _retry_after_s(self) -> float:
        return min(max(self._backlog_ns() / 1e9, 0.05), _LONGEST_RETRY_S)

    def _put_after_sweep(self, job: Job) -> None:
        """The queue is full: make room by answering dead jobs, or refuse."""
        self._bury(self._queue.sweep_if_due())
        try:
            self._queue.put(job)
        except Overloaded as error:
            self._stats.rejected()
            raise Overloaded(str(error), retry_after_s=self._retry_after_s()) from None

    # Running

    def _start_worker(self) -> None:
        """The lane's maker starts the first worker, and the newest worker the next one when it goes to work, so that
        one is free up to `plan.streams`. `submit` starts none: that blocks, and its thread is the event loop's."""
        number = len(self._threads)
        name = f"{self.name[:24]}:{self.version}/{number}"
        thread = threading.Thread(target=self._work, args=(number,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, number: int) -> None:
        """A worker's life: one batch after another, until the queue is closed and empty."""
        runner = Runner(self.spec, self._session, self._clock)
        queue = self._queue
        while queue.wait():
            granted = self._budget.acquire(self.plan.threads)
            if not granted:
                return
            is_whole = True
            try:
                batch, dead = queue.take(self._batch_rows, self._workers())
                if dead:
                    self._bury(dead)
                if batch:
                    if number + 1 == len(self._threads) < self.plan.streams:
                        self._start_worker()
                    is_whole = self._run(runner, batch)
                    queue.rest()
            finally:
                self._budget.release(granted)
            if batch:
                self._finish(batch, is_whole)

    def _workers(self) -> int:
        """How many batches may run at once now, as far as the cores go; the caller holds its permits already."""
        return min(self.plan.streams, self._queue.busy + 1 + self._budget.free // self.plan.threads)

    def _take_turn(self) -> None:
        """Run what gathered, on the submitting thread; come back later if that takes too long."""
        defer = self._defer
        if defer is None:
            return
        clock, queue = self._clock, self._queue
        end = clock() + INLINE_TURN_NS
        while True:
            batch, dead = queue.take(self._batch_rows)
            if dead:
                self._bury(dead)
            if batch:
                is_whole = self._run(self._runner, batch)
                queue.rest()
                self._finish(batch, is_whole)
            if not queue.waiting:
                self._is_turn_due = False
                return
            if clock() >= end:
                defer(self._take_turn)
                return

    def _run(self, runner: Runner, batch: list[Job]) -> bool:
        """Run a batch; whatever happens, every job of it has an outcome afterwards."""
        try:
            is_whole = runner.run(batch)
            first = batch[0]
            if is_whole and first.error is None and 2 * first.batch_rows > self._batch_rows:
                spent = (first.ran_ns - first.started_ns) / first.batch_rows
                self._row_ns += _FRESH * (spent - self._row_ns)
        except Exception:
            _log.exception("%s version %d: a batch of %d requests failed", self.name, self.version, len(batch))
            for job in batch:
                if job.error is None and not job.settled_ns:
                    job.result = None
                    job.error = EngineFault("the engine failed in a way nobody foresaw; the daemon's log has more")
            return False
        return is_whole

    # Delivery

    def _finish(self, batch: list[Job], is_whole: bool) -> None:
        """Count and deliver a batch that ran, dropping the answers nobody waits for."""
        try:
            self._settle(batch, is_whole)
        finally:
            self._deliver(batch)

    def _settle(self, batch: list[Job], is_whole: bool) -> None:
        now = self._clock()
        good = []
        for job in batch:
            if job.is_cancelled or (job.deadline_ns is not None and now > job.deadline_ns):
                job.settled_ns = now
                self._give_up(job, now)
            elif job.error is None:
                good.append(job)
            else:
                job.settled_ns = now
                self._stats.failed((job,))
        if is_whole and good:
            self._stats.ran(good, good[0].batch_rows)
        else:
            for job in good:
                self._stats.ran((job,), job.batch_rows)

    def _bury(self, jobs: list[Job], error: InferdError | None = None) -> None:
        """Settle and deliver jobs that never ran: with `error`, or as their own state says."""
        if not jobs:
            return
        now = self._clock()
        for job in jobs:
            job.settled_ns = now
            if error is None or job.is_cancelled:
                self._give_up(job, now)
            else:
                job.error = type(error)(str(error))
                self._stats.failed((job,))
        self._deliver(jobs)

    def _give_up(self, job: Job, now: int) -> None:
        """Settle a job that nobody waits for any more."""
        job.result = None
        if job.is_cancelled:
            job.error = Cancelled("the caller left")
            self._stats.cancelled()
        else:
            waited_ms = (now - job.enqueued_ns) / 1e6
            job.error = DeadlineExceeded(f"the deadline passed after {waited_ms:.1f} ms in the daemon")
            self._stats.late()

    def _deliver(self, jobs: list[Job]) -> None:
        """Hand settled jobs to the submitter; from here on they are not ours."""
        nbytes = sum([job.nbytes for job in jobs])
        try:
            self._deliver_jobs(jobs)
        except Exception:
            _log.exception("%s version %d: the receiver of %d answers failed", self.name, self.version, len(jobs))
        self._queue.done(len(jobs), nbytes)
