"""The waiting room of one lane: bounded, grouped by shape, swept of jobs nobody waits for.

Jobs that may share a batch have equal `group`s. The group of the oldest job always goes first, and a batch is filled
from that group wherever in the queue its jobs stand, so another shape neither closes a batch nor starves. A priority
makes a job count as older than it is, so it overtakes for a bounded time and starves nobody.
Invariant: a job leaves exactly once, through `take`, `sweep` or `close`. Any thread may call.
"""

from __future__ import annotations

import threading
from bisect import insort
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from inferd_runtime.errors import Closed, InvalidRequest, Overloaded
from inferd_runtime.job import Job
from inferd_runtime.scheduling.budget import ByteBudget

# A full queue is searched for abandoned jobs at most this often, so that refusing stays cheap under overload.
_SWEEP_PAUSE_NS = 5_000_000
# A job goes before those of one level less that came up to this much earlier.
HEAD_START_NS = 100_000_000


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of a queue: `max_jobs` wait in it; `held` counts input bytes over all queues."""

    max_jobs: int
    held: ByteBudget


def is_dead(job: Job, now_ns: int) -> bool:
    """Whether nobody waits for this job any more."""
    return job.is_cancelled or (job.deadline_ns is not None and now_ns > job.deadline_ns)


def _counts_from_ns(job: Job) -> int:
    """When the job lined up, as its priority makes it count."""
    return job.enqueued_ns - job.priority * HEAD_START_NS


class JobQueue:
    """Jobs of one lane that wait for a worker. Jobs taken count as running until `done`."""

    def __init__(self, limits: QueueLimits, clock: Callable[[], int]) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()  # guards all that follows
        self._ready = threading.Condition(self._lock)
        self._quiet = threading.Condition(self._lock)
        self._groups: dict[Hashable, deque[Job]] = {}
        self._idle = 0
        self._is_closed = False
        self._swept_ns = -_SWEEP_PAUSE_NS
        self.accepted = 0
        self.waiting = 0
        self.waiting_rows = 0
        self.running = 0
        self.busy = 0  # workers with a batch

    def put(self, job: Job) -> None:
        """Line up. Raises Overloaded, InvalidRequest or Closed, and then nothing changed."""
        with self._lock:
            if self._is_closed:
                raise Closed("this model version is being replaced")
            if self.waiting >= self._limits.max_jobs:
                raise Overloaded(f"{self.waiting} requests wait for this model already; the limit is reached")
            if not self._limits.held.take(job.nbytes):
                raise self._too_heavy(job)
            group = self._groups.get(job.group)
            if group is None:
                self._groups[job.group] = group = deque()
            if group and _counts_from_ns(job) < _counts_from_ns(group[-1]):
                insort(group, job, key=_counts_from_ns)
            else:
                group.append(job)
            self.accepted += 1
            self.waiting += 1
            self.waiting_rows += job.rows
            if self._idle:
                self._idle -= 1
                self._ready.notify()

    def _too_heavy(self, job: Job) -> InvalidRequest | Overloaded:
        limit = self._limits.held.limit
        if job.nbytes > limit:
            return InvalidRequest(f"the request holds {job.nbytes} input bytes; at most {limit} are taken")
        return Overloaded(
            f"waiting requests hold {self._limits.held.held} input bytes; the limit of {limit} is reached"
        )

    def wait(self) -> bool:
        """Block until a job waits (True) or the queue is closed and empty (False)."""
        with self._lock:
            while not self.waiting:
                if self._is_closed:
                    return False
                self._idle += 1  # the waker takes it back
                self._ready.wait()
            return True

    def take(self, max_rows: int, workers: int = 1) -> tuple[list[Job], list[Job]]:
        """The next batch of up to `max_rows` rows (always at least one job), and the dead jobs met on the way.

        Both may be empty. All of them count as running until `done`; whoever got a batch calls `rest` after its run.
        Of the `workers` that may run at once those without a batch get equal shares of what waits: one that took all
        would leave the others idle, and callers who wait for their answers before they ask again would keep it so.
        """
        batch: list[Job] = []
        dead: list[Job] = []
        with self._lock:
            now = self._clock()
            free = workers - self.busy
            if free > 1:
                max_rows = min(max_rows, -(-self.waiting_rows // free))
            group = self._oldest()
            if group and is_dead(group[0], now):
                self._strip(dead, now)
                group = self._oldest()
            if group:
                self._fill(batch, dead, group, max_rows, now)
            if batch:
                self.busy += 1
                self._left(batch)
            if dead:
                self._left(dead)
        return batch, dead

    def rest(self) -> None:
        """A worker's run is over."""
        with self._lock:
            self.busy -= 1

    def sweep(self) -> list[Job]:
        """Take out every dead job; they count as running until `done`."""
        with self._lock:
            now = self._clock()
            self._swept_ns = now
            dead: list[Job] = []
            for key, group in list(self._groups.items()):
                gone = [job for job in group if is_dead(job, now)]
                if len(gone) == len(group):
                    del self._groups[key]
                elif gone:
                    self._groups[key] = deque(job for job in group if not is_dead(job, now))
                dead += gone
            self._left(dead)
        return dead

    def sweep_if_due(self) -> list[Job]:
        """`sweep`, unless that was done just now."""
        return self.sweep() if self._clock() - self._swept_ns >= _SWEEP_PAUSE_NS else []

    def done(self, count: int, nbytes: int) -> None:
        """So many jobs are delivered: their bytes are free and a drain need not wait for them."""
        self._limits.held.give(nbytes)
        with self._lock:
            self.running -= count
            if not self.running:
                self._quiet.notify_all()

    def stop(self) -> None:
        """Refuse new jobs from now on; those waiting are still served."""
        with self._lock:
            self._is_closed = True
            self._ready.notify_all()
            self._idle = 0

    def close(self) -> list[Job]:
        """Stop, and take out all that waits; they count as running until `done`."""
        with self._lock:
            self._is_closed = True
            left = [job for group in self._groups.values() for job in group]
            self._groups.clear()
            self._left(left)
            self._ready.notify_all()
            self._idle = 0
        return left

    def wait_quiet(self, timeout_s: float) -> bool:
        """Wait until nothing waits or runs; False on timeout."""
        with self._lock:
            return self._quiet.wait_for(lambda: not self.running and not self.waiting, timeout=timeout_s)

    def _oldest(self) -> deque[Job] | None:
        """The group whose head has waited longest. The lock is held."""
        groups = self._groups
        if len(groups) > 1:
            return min(groups.values(), key=lambda group: _counts_from_ns(group[0]))
        return next(iter(groups.values()), None)

    def _strip(self, dead: list[Job], now: int) -> None:
        """Take the dead off the head of every group. The lock is held."""
        for key, group in list(self._groups.items()):
            while group and is_dead(group[0], now):
                dead.append(group.popleft())
            if not group:
                del self._groups[key]

    def _fill(self, batch: list[Job], dead: list[Job], group: deque[Job], max_rows: int, now: int) -> None:
        """Move jobs from the head of a group to the batch, as rows allow. The lock is held."""
        rows = 0
        key = group[0].group
        while group:
            job = group[0]
            if is_dead(job, now):
                dead.append(group.popleft())
            elif batch and rows + job.rows > max_rows:
                return
            else:
                batch.append(group.popleft())
                rows += job.rows
        del self._groups[key]

    def _left(self, jobs: list[Job]) -> None:
        """Count jobs that left the queue. The lock is held."""
        self.waiting -= len(jobs)
        self.running += len(jobs)
        for job in jobs:
            self.waiting_rows -= job.rows
