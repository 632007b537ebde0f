"""Counters of one model version: plain integers under one lock, taken once a batch, read by whoever scrapes.

Follows the Open Inference Protocol's statistics extension: `inference_count` counts rows, `execution_count` engine
runs, `success.count` requests. Times are nanoseconds. Latency histograms have fixed buckets: their memory is bounded.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from inferd_runtime.job import Job

# Upper bounds in seconds, roughly four a decade from 100 us to 10 s.
LATENCY_BUCKETS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_BUCKETS_NS = tuple(int(bound * 1e9) for bound in LATENCY_BUCKETS_S)
# A batch of more rows than this shares the last key, so that odd batch sizes cannot grow the table without end.
MAX_BATCH_KEYS = 256


@dataclass(slots=True)
class BatchStats:
    """Sums over all engine runs that had one number of rows."""

    count: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0


@dataclass(slots=True)
class StatsSnapshot:
    """The counters at one moment. `latency_counts[i]` counts requests in bucket i; the last is beyond all bounds.

    `wasted_*` count what was run in vain: rows whose caller had left or whose deadline passed meanwhile, and their part
    of the engine's time.
    """

    name: str
    version: int
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success_count: int = 0
    success_ns: int = 0
    fail_count: int = 0
    fail_ns: int = 0
    cancelled_count: int = 0
    late_count: int = 0
    rejected_count: int = 0
    wasted_left_rows: int = 0
    wasted_late_rows: int = 0
    wasted_ns: int = 0
    queue_ns: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0
    batches: dict[int, BatchStats] = field(default_factory=dict)
    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_S) + 1))
    latency_sum_ns: int = 0


class ModelStats:
    """The live counters of one model version. Every method may be called from any thread."""

    def __init__(self, name: str, version: int) -> None:
        self._lock = threading.Lock()
        self._now = StatsSnapshot(name, version)

    def ran(self, jobs: Sequence[Job], rows: int) -> None:
        """A batch ran; all of `jobs` are settled with a result and carry their timings.

        The batch's compute times count once for the run and once for each request, as the protocol has it.
        """
        first = jobs[0]
        gather_ns = first.gathered_ns - first.started_ns
        infer_ns = first.ran_ns - first.gathered_ns
        output_ns = first.settled_ns - first.ran_ns
        count = len(jobs)
        with self._lock:
            now = self._now
            now.last_inference_ms = time.time_ns() // 1_000_000
            now.inference_count += rows
            now.execution_count += 1
            now.success_count += count
            now.compute_input_ns += gather_ns * count
            now.compute_infer_ns += infer_ns * count
            now.compute_output_ns += output_ns * count
            for job in jobs:
                total_ns = job.settled_ns - job.enqueued_ns
                now.queue_ns += job.started_ns - job.enqueued_ns
                now.success_ns += total_ns
                now.latency_counts[bisect_left(_BUCKETS_NS, total_ns)] += 1
                now.latency_sum_ns += total_ns
            batch = now.batches.get(rows)
            if batch is None:
                key = rows if len(now.batches) < MAX_BATCH_KEYS else max(now.batches)
                batch = now.batches.setdefault(key, BatchStats())
            batch.count += 1
            batch.compute_input_ns += gather_ns
            batch.compute_infer_ns += infer_ns
            batch.compute_output_ns += output_ns

    def failed(self, jobs: Sequence[Job]) -> None:
        """An engine fault failed these settled jobs."""
        with self._lock:
            for job in jobs:
                self._now.fail_count += 1
                self._now.fail_ns += job.settled_ns - job.enqueued_ns

    def cancelled(self, count: int = 1) -> None:
        """Callers left before their answer."""
        with self._lock:
            self._now.cancelled_count += count

    def late(self, count: int = 1) -> None:
        """Deadlines passed, or could not be met any more."""
        with self._lock:
            self._now.late_count += count

    def rejected(self, count: int = 1) -> None:
        """Admission refused jobs because a bound was reached."""
        with self._lock:
            self._now.rejected_count += count

    def wasted(self, job: Job) -> None:
        """A run gave this job an answer that nobody takes any more."""
        with self._lock:
            if job.is_cancelled:
                self._now.wasted_left_rows += job.rows
            else:
                self._now.wasted_late_rows += job.rows
            self._now.wasted_ns += (job.ran_ns - job.gathered_ns) * job.rows // job.batch_rows

    def snapshot(self) -> StatsSnapshot:
        """A copy that no later batch changes."""
        with self._lock:
            now = self._now
            copy = StatsSnapshot(now.name, now.version)
            for name in StatsSnapshot.__slots__:
                setattr(copy, name, getattr(now, name))
            copy.batches = {
                rows: BatchStats(b.count, b.compute_input_ns, b.compute_infer_ns, b.compute_output_ns)
                for rows, b in now.batches.items()
            }
            copy.latency_counts = list(now.latency_counts)
            return copy
