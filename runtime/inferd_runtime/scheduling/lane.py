"""A lane: one model version's queue with those who serve it, from admission to delivery.

Either worker threads serve it (`workers`) or the thread that submits does (`inline`). A job whose deadline is sooner
than its predicted finish is refused at the door. An accepted job is delivered exactly once, whatever happens.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from inferd_runtime.engines import Session
from inferd_runtime.errors import Cancelled, Closed, DeadlineExceeded, Overloaded
from inferd_runtime.job import Job
from inferd_runtime.scheduling.admission import Admission
from inferd_runtime.scheduling.batch import Runner
from inferd_runtime.scheduling.budget import CoreBudget
from inferd_runtime.scheduling.desk import Deliver, Desk
from inferd_runtime.scheduling.inline import Defer, InlineTurns
from inferd_runtime.scheduling.profile import Profile
from inferd_runtime.scheduling.queue import JobQueue, QueueLimits
from inferd_runtime.scheduling.sizing import Sizing
from inferd_runtime.scheduling.spent import free_now
from inferd_runtime.scheduling.workers import Workers
from inferd_runtime.spec import ModelSpec, Plan
from inferd_runtime.stats import ModelStats

# How long `close` waits for a run under way, and for one that ends with its session.
RUN_WAIT_S = 70.0
ENDED_WAIT_S = 1.0

_log = logging.getLogger(__name__)


class Lane:
    """Serves one open session until closed; owns it, and the one for `plan.idle`, and gives them to `free` then.

    `ends_runs`: to free a session ends what runs there, as with one in a child process, so that no hung run is waited
    for.
    """

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
        idle_session: Session | None = None,
        free: Callable[[Session], None] = free_now,
        ends_runs: bool = False,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.name = name
        self.version = version
        self.spec = spec
        self.plan = plan
        self._sessions = (session,) if idle_session is None else (session, idle_session)
        self._free = free
        self._ends_runs = ends_runs
        self._stats = stats
        self._clock = clock
        self._admit = Admission(spec).check
        profile = Profile(plan.curve, plan.run_us, max(spec.max_batch, 1))
        self._sizing = sizing = Sizing(profile, plan.batch if spec.max_batch and plan.batch else 1)
        row_ns = profile.typical_ns(sizing.rows) / sizing.rows / (1 if plan.inline else plan.streams)
        self._queue = JobQueue(queue_limits, clock, profile, row_ns)
        self._desk = Desk(f"{name} version {version}", self._queue, sizing, stats, deliver, clock)
        self._closing = threading.Lock()
        self._is_closed = False
        self._inline: InlineTurns | None = None
        self._workers: Workers | None = None
        self._hire: Callable[[], Workers] = lambda: Workers(
            f"{name[:24]}:{version}",
            plan,
            self._desk,
            budget,
            lambda: Runner(spec, session, clock),
            None if idle_session is None else Runner(spec, idle_session, clock),
        )
        if plan.inline and defer is not None:
            self._inline = InlineTurns(self._desk, Runner(spec, session, clock), defer, self._leave_thread, clock)
        else:
            self._workers = self._hire()

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
        return self._inline is not None

    @property
    def inline_ns(self) -> int:
        """Time spent in inline runs, ever."""
        return 0 if self._inline is None else self._inline.busy_ns

    def submit(self, job: Job) -> None:
        """Accept the job, to be delivered later, or raise: InvalidRequest, Overloaded, DeadlineExceeded, Cancelled,
        Closed."""
        self._admit(job)
        job.enqueued_ns = now = self._clock()
        if job.is_cancelled:
            self._stats.cancelled()
            raise Cancelled("the caller left before the request was queued")
        if job.deadline_ns is not None and job.deadline_ns <= now:
            self._stats.late()
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        try:
            self._queue.put(job, self._sizing.rows)
        except (Overloaded, DeadlineExceeded):
            self._put_after_sweep(job)
        job.version = self.version
        if self._inline is not None and not self._inline.is_due:
            self._inline.call()

    def _leave_thread(self) -> None:
        """Runs hold up the thread that submits: from now on a worker serves."""
        _log.warning(
            "%s version %d moves to a worker thread: its runs take longer than they did in the warm-up, and everybody "
            'waits meanwhile; inline = "off" in model.toml keeps it there',
            self.name,
            self.version,
        )
        self._inline = None
        if not self._is_closed:
            self._workers = self._hire()

    def _put_after_sweep(self, job: Job) -> None:
        """There is no room: make some by answering dead jobs, or refuse."""
        self._desk.bury(self._queue.sweep_if_due())
        try:
            self._queue.put(job, self._sizing.rows)
        except Overloaded:
            self._stats.rejected()
            raise
        except DeadlineExceeded:
            self._stats.late()
            raise

    def sweep(self) -> None:
        """Answer the waiting jobs that nobody waits for, without waiting for a worker; costs little when none wait.

        An inline lane sweeps itself at its next turn, on its own thread.
        """
        if self._inline is None and self._queue.waiting:
            self._desk.bury(self._queue.sweep())

    def stop(self) -> None:
        """Take no more; what was accepted is still served."""
        self._queue.stop()

    def drain(self, timeout_s: float) -> bool:
        """`stop`, and wait until all is delivered; False when time ran out. An inline lane needs its thread running
        meanwhile, so this is not for that thread."""
        self._queue.stop()
        return self._queue.wait_quiet(timeout_s)

    def close(self) -> None:
        """Settle what waits with Closed, let runs under way end, free the sessions; idempotent."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        self._desk.bury(self._queue.close(), Closed("the model was unloaded before this request could run"))
        if self._queue.wait_quiet(ENDED_WAIT_S if self._ends_runs else RUN_WAIT_S) or self._ends_runs:
            for session in self._sessions:
                self._free(session)
        else:
            _log.error("%s version %d: a run does not end, so its session stays open", self.name, self.version)
        if self._workers is not None:
            self._workers.join()
