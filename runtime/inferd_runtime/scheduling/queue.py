"""The waiting room of one lane: bounded, in turns, grouped by shape, swept of jobs nobody waits for.

Jobs that may share a batch have equal `group`s. The group of the first turn goes first, and a batch is filled from that
group wherever in the queue its jobs stand, so another shape neither closes a batch nor starves. No job joins a batch
that would make an earlier deadline in it be missed.
Invariant: a job leaves exactly once, through `take`, `sweep` or `close`. Any thread may call.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from operator import attrgetter

from inferd_runtime.errors import Closed, DeadlineExceeded, InvalidRequest, Overloaded
from inferd_runtime.job import Job
from inferd_runtime.scheduling.budget import ByteBudget
from inferd_runtime.scheduling.profile import Profile
from inferd_runtime.scheduling.turns import Turns

# A full queue is searched for abandoned jobs at most this often, so that refusing stays cheap under overload.
_SWEEP_PAUSE_NS = 5_000_000
# The part of a new measurement in the running average.
_FRESH = 0.2
_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 0.05, 60.0
# Forecasts are stretched by so much whenever deadlines are missed, and a little less again with each that is met, until
# no larger share than this is missed.
_STRETCH = 0.05
_MISSED = 0.002
_MOST_CAUTION = 2.0
# So many jobs in a row that met nobody show that requests come alone.
_ALONE = 2

_turn = attrgetter("turn_ns")


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of a queue: `max_jobs` wait in it; `held` counts input bytes over all queues."""

    max_jobs: int
    held: ByteBudget


def is_dead(job: Job, now_ns: float) -> bool:
    """Whether nobody waits for this job any more."""
    return job.is_cancelled or (job.deadline_ns is not None and now_ns > job.deadline_ns)


class JobQueue:
    """Jobs of one lane that wait for a worker. Jobs taken count as running until `done`.

    `row_ns` is the pace: how long the lane takes a row while jobs wait, whatever else the cores are busy with.
    `caution` stretches forecasts: under overload every job accepted is one that is forecast to be just in time.
    """

    def __init__(self, limits: QueueLimits, clock: Callable[[], int], profile: Profile, row_ns: float = 0.0) -> None:
        self._limits = limits
        self._clock = clock
        self._profile = profile
        self._lock = threading.Lock()  # guards all that follows
        self._ready = threading.Condition(self._lock)
        self._quiet = threading.Condition(self._lock)
        self._groups: dict[Hashable, deque[Job]] = {}
        self._turns = Turns()
        self._idle = 0
        self._alone = _ALONE
        self._is_awaited = False  # someone waits for quiet, or did
        self._is_closed = False
        self._is_pressed = False  # since the last take jobs waited and no worker was free
        self._swept_ns = -_SWEEP_PAUSE_NS
        self._taken_ns = 0
        self._taken_rows = 1
        self.row_ns = row_ns
        self.caution = 1.0 + 2 * _STRETCH
        self.accepted = 0
        self.waiting = 0
        self.waiting_rows = 0
        self.running = 0
        self.busy = 0  # workers with a batch

    def put(self, job: Job, batch_rows: int) -> None:
        """Line up. Raises Overloaded, InvalidRequest, Closed, or DeadlineExceeded where the predicted finish of a batch
        of up to `batch_rows` is too late, and then nothing changed."""
        with self._lock:
            if self._is_closed:
                raise Closed("this model version is being replaced")
            if self.waiting >= self._limits.max_jobs:
                raise self._full()
            if job.deadline_ns is not None:
                self._check_hope(job, job.deadline_ns, batch_rows)
            if not self._limits.held.take(job.nbytes):
                raise self._too_heavy(job)
            if self.waiting or self.busy:
                self._alone = 0
            else:
                self._alone += 1
                self._turns.forgive()
            job.turn_ns = turn = self._turns.take(job, job.rows * self.row_ns)
            group = self._groups.get(job.group)
            if group is None:
                self._groups[job.group] = group = deque()
            if group and turn < group[-1].turn_ns:
                insort(group, job, key=_turn)
            else:
                group.append(job)
            self.accepted += 1
            self.waiting += 1
            self.waiting_rows += job.rows
            if self._idle:
                self._idle -= 1
                self._ready.notify()

    def _full(self) -> Overloaded:
        return Overloaded(
            f"{self.waiting} requests wait for this model already; the limit is reached",
            retry_after_s=self._retry_after_s(),
        )

    def _too_heavy(self, job: Job) -> InvalidRequest | Overloaded:
        limit = self._limits.held.limit
        if job.nbytes > limit:
            return InvalidRequest(f"the request holds {job.nbytes} input bytes; at most {limit} are taken")
        return Overloaded(
            f"waiting requests hold {self._limits.held.held} input bytes; the limit of {limit} is reached",
            retry_after_s=self._retry_after_s(),
        )

    def _check_hope(self, job: Job, deadline: int, batch_rows: int) -> None:
        """Refuse a job that cannot be done in time behind those that go before it. The lock is held.

        With nothing waiting and a worker free a job is always tried, so that one slow run cannot close the door for
        good.
        """
        if not self.waiting and (self._idle or not self.busy):
            return
        now = job.enqueued_ns
        longest_run = self._profile.slow_ns(min(self.waiting_rows, batch_rows) + job.rows)
        if now + self.caution * ((self._taken_rows + self.waiting_rows) * self.row_ns + longest_run) <= deadline:
            return  # even behind all that wait
        ahead = self._rows_before(self._turns.of(job)) if self.waiting else 0
        behind = ahead - ahead % batch_rows
        wait = max(0.0, self._taken_ns + self._taken_rows * self.row_ns - now) + behind * self.row_ns
        finish = now + self.caution * (wait + self._profile.slow_ns(ahead - behind + job.rows))
        if finish > deadline:
            raise DeadlineExceeded(
                f"the deadline is {(deadline - now) / 1e6:.1f} ms away, but the answer is expected in "
                f"{(finish - now) / 1e6:.1f} ms",
                retry_after_s=self._retry_after_s(),
            )

    def _retry_after_s(self) -> float:
        """When those who wait now will be done."""
        return min(max(self.waiting_rows * self.row_ns / 1e9, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)

    def _rows_before(self, turn: float) -> int:
        """About how many of the waiting rows go before that turn. The lock is held."""
        jobs = 0
        for group in self._groups.values():
            jobs += len(group) if group[-1].turn_ns <= turn else bisect_right(group, turn, key=_turn)
        return jobs * self.waiting_rows // self.waiting

    def wait(self) -> bool:
        """Block until a job waits (True) or the queue is closed and empty (False)."""
        with self._lock:
            while not self.waiting:
                if self._is_closed:
                    return False
                self._idle += 1  # the waker takes it back
                self._ready.wait()
            return True

    def is_alone(self) -> bool:
        """Whether one job waits, nothing runs, and it was like that before."""
        return self.waiting == 1 and not self.busy and self._alone >= _ALONE

    def take(self, max_rows: int, workers: int = 1) -> tuple[list[Job], list[Job]]:
        """The next batch of up to `max_rows` rows (always at least one job), and the dead jobs met on the way.

        Both may be empty. All of them count as running until `done`; whoever got a batch calls `rest` after its run.
        Of the `workers` that may run at once those without a batch get equal shares of what waits: one that took all
        would leave the others idle, and callers who wait for their answers before they ask again would keep it so.
        A job among others whose deadline no run can meet any more counts as dead.
        """
        batch: list[Job] = []
        dead: list[Job] = []
        with self._lock:
            now = self._clock()
            if self._is_pressed:
                self.row_ns += _FRESH * ((now - self._taken_ns) / self._taken_rows - self.row_ns)
            free = workers - self.busy
            if free > 1:
                max_rows = min(max_rows, -(-self.waiting_rows // free))
            least_end = now + self._profile.typical_ns(1) if self.waiting > 1 else now
            group = self._first()
            if group and is_dead(group[0], least_end):
                self._strip(dead, least_end)
                group = self._first()
            if group:
                self._taken_rows = self._fill(batch, dead, group, max_rows, now, least_end)
                self._taken_ns = now
                self.busy += 1
                self._left(len(batch), self._taken_rows)
            if dead:
                self._left(len(dead), _rows(dead))
            self._is_pressed = self.waiting > 0 and free <= 1
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
            self._left(len(dead), _rows(dead))
        return dead

    def sweep_if_due(self) -> list[Job]:
        """`sweep`, unless that was done just now."""
        return self.sweep() if self._clock() - self._swept_ns >= _SWEEP_PAUSE_NS else []

    def done(self, count: int, nbytes: int) -> None:
        """So many jobs are delivered: their bytes are free and a drain need not wait for them."""
        self._limits.held.give(nbytes)
        with self._lock:
            self.running -= count
            if self._is_awaited and not self.running:
                self._quiet.notify_all()

    def learn(self, met: int, missed: int) -> None:
        """So many deadlines of accepted jobs were met, and so many were not; missed together, they count as one."""
        with self._lock:
            caution = self.caution + _STRETCH * (min(missed, 1) - _MISSED * met)
            self.caution = min(max(caution, 1.0), _MOST_CAUTION)

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
            self._left(len(left), _rows(left))
            self._ready.notify_all()
            self._idle = 0
        return left

    def wait_quiet(self, timeout_s: float) -> bool:
        """Wait until nothing waits or runs; False on timeout."""
        with self._lock:
            self._is_awaited = True
            return self._quiet.wait_for(lambda: not self.running and not self.waiting, timeout=timeout_s)

    def _first(self) -> deque[Job] | None:
        """The group whose head has the first turn. The lock is held."""
        groups = self._groups
        if len(groups) > 1:
            return min(groups.values(), key=lambda group: group[0].turn_ns)
        return next(iter(groups.values()), None)

    def _strip(self, dead: list[Job], end: float) -> None:
        """Take the dead off the head of every group. The lock is held."""
        for key, group in list(self._groups.items()):
            while group and is_dead(group[0], end):
                dead.append(group.popleft())
            if not group:
                del self._groups[key]

    def _fill(
        self, batch: list[Job], dead: list[Job], group: deque[Job], max_rows: int, now: int, least_end: float
    ) -> int:
        """Move jobs from the head of a group to the batch, as rows and deadlines allow. The lock is held."""
        rows = 0
        key = group[0].group
        due: int | None = None
        while group:
            job = group[0]
            deadline = job.deadline_ns
            if job.is_cancelled or (deadline is not None and least_end > deadline):
                dead.append(group.popleft())
                continue
            if deadline is not None and (due is None or deadline < due):
                due = deadline
                max_rows = self._profile.rows_within(due - now, max_rows)
            if batch and rows + job.rows > max_rows:
                return rows
            batch.append(group.popleft())
            rows += job.rows
        del self._groups[key]
        return rows

    def _left(self, count: int, rows: int) -> None:
        """So many jobs left the queue. The lock is held."""
        self.waiting -= count
        self.waiting_rows -= rows
        self.running += count
        if not self.waiting:
            self._is_pressed = False


def _rows(jobs: list[Job]) -> int:
    return sum([job.rows for job in jobs])
