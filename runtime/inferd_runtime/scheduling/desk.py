"""What every batch of a lane goes through, whatever thread it is on: run, learn from it, count, deliver.

Invariant: a job that comes here is settled and delivered exactly once, whatever the engine and the receiver do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from inferd_runtime.errors import Cancelled, DeadlineExceeded, EngineFault, InferdError
from inferd_runtime.job import Job
from inferd_runtime.scheduling.batch import Runner
from inferd_runtime.scheduling.queue import JobQueue
from inferd_runtime.scheduling.sizing import Sizing
from inferd_runtime.stats import ModelStats

Deliver = Callable[[Sequence[Job]], None]

_log = logging.getLogger(__name__)


class Desk:
    """Runs and settles the batches of one lane. Any thread may call."""

    def __init__(
        self,
        title: str,
        queue: JobQueue,
        sizing: Sizing,
        stats: ModelStats,
        deliver: Deliver,
        clock: Callable[[], int],
    ) -> None:
        self.queue = queue
        self.sizing = sizing
        self._title = title
        self._stats = stats
        self._deliver_jobs = deliver
        self._clock = clock

    def run(self, runner: Runner, batch: list[Job]) -> bool:
        """Run a batch; whatever happens, every job of it has an outcome afterwards. True when it ran as a whole."""
        try:
            return runner.run(batch)
        except Exception:
            _log.exception("%s: a batch of %d requests failed", self._title, len(batch))
            for job in batch:
                if job.error is None and not job.settled_ns:
                    job.result = None
                    job.error = EngineFault("the engine failed in a way nobody foresaw; the daemon's log has more")
            return False

    def finish(self, batch: list[Job], is_whole: bool, *, teaches: bool = True) -> None:
        """Count and deliver a batch that ran, dropping the answers nobody waits for.

        `teaches`: how long it took says how long others will take.
        """
        try:
            self._settle(batch, is_whole, teaches)
        finally:
            self._deliver(batch)

    def _settle(self, batch: list[Job], is_whole: bool, teaches: bool) -> None:
        now = self._clock()
        good = []
        met = missed = 0
        first = batch[0]
        took_ns = first.settled_ns - first.started_ns if is_whole and first.error is None else 0
        for job in batch:
            deadline = job.deadline_ns
            if job.is_cancelled or (deadline is not None and now > deadline):
                missed += not job.is_cancelled
                if job.result is not None:
                    self._stats.wasted(job)
                job.settled_ns = now
                self._give_up(job, now)
                continue
            met += deadline is not None
            if job.error is None:
                good.append(job)
            else:
                job.settled_ns = now
                self._stats.failed((job,))
        if is_whole and good:
            self._stats.ran(good, good[0].batch_rows)
        else:
            for job in good:
                self._stats.ran((job,), job.batch_rows)
        if took_ns and teaches:
            self.sizing.ran(first.batch_rows, took_ns, now, missed > 0)
        if met or missed:
            self.queue.learn(met, missed)

    def bury(self, jobs: list[Job], error: InferdError | None = None) -> None:
        """Settle and deliver jobs that never ran: with `error`, or as their own state says."""
        if not jobs:
            return
        now = self._clock()
        missed = 0
        for job in jobs:
            job.settled_ns = now
            if error is None or job.is_cancelled:
                missed += not job.is_cancelled
                self._give_up(job, now)
            else:
                job.error = type(error)(str(error))
                self._stats.failed((job,))
        if missed:
            self.queue.learn(0, missed)
        self._deliver(jobs)

    def _give_up(self, job: Job, now: int) -> None:
        """Settle a job that nobody waits for any more, or will by the time it could be done."""
        job.result = None
        if job.is_cancelled:
            job.error = Cancelled("the caller left")
            self._stats.cancelled()
        else:
            waited_ms = (now - job.enqueued_ns) / 1e6
            job.error = DeadlineExceeded(f"the deadline could not be met: {waited_ms:.1f} ms went by in the daemon")
            self._stats.late()

    def _deliver(self, jobs: list[Job]) -> None:
        """Hand settled jobs to the submitter; from here on they are not ours."""
        nbytes = sum([job.nbytes for job in jobs])
        try:
            self._deliver_jobs(jobs)
        except Exception:
            _log.exception("%s: the receiver of %d answers failed", self._title, len(jobs))
        self.queue.done(len(jobs), nbytes)
