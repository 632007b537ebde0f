"""Whose turn it is among the jobs of one lane: fair to principals, earlier for priorities, within bounds.

A job's turn is the moment it came, but not before its principal's last job would be done if that principal had the
model alone: who floods the queue lines up behind itself (the virtual clock discipline). A priority makes the turn
earlier, so it overtakes for a bounded time and starves nobody. Guarded by the queue's lock.
"""

from __future__ import annotations

from inferd_runtime.job import Job

# A job goes before those of one level less that came up to this much earlier.
HEAD_START_NS = 100_000_000


class Turns:
    """When each principal's last job would be done."""

    def __init__(self) -> None:
        self._done_ns: dict[str, float] = {}

    def of(self, job: Job) -> float:
        """The turn of a job if it lined up now."""
        return max(job.enqueued_ns, self._done_ns.get(job.principal, 0)) - job.priority * HEAD_START_NS

    def take(self, job: Job, run_ns: float) -> float:
        """Its turn; from now on the next job of its principal comes `run_ns` later."""
        start = self._done_ns.get(job.principal, 0)
        if start < job.enqueued_ns:
            start = job.enqueued_ns
        self._done_ns[job.principal] = start + run_ns
        return start - job.priority * HEAD_START_NS

    def forgive(self) -> None:
        """Nobody waits: all start anew."""
        if self._done_ns:
            self._done_ns.clear()
