"""Counters of a model version, and the job that they count."""

from __future__ import annotations

import threading

import numpy as np

from inferd_runtime.job import Job
from inferd_runtime.stats import LATENCY_BUCKETS_S, MAX_BATCH_KEYS, ModelStats


def settled(at: int = 1_000, rows: int = 1) -> Job:
    """A job that waited 10 ns, gathered 20 ns, ran 30 ns and was split in 40 ns."""
    job = Job("m", {"x": np.zeros((rows, 1))})
    job.rows = rows
    job.enqueued_ns = at
    job.started_ns, job.gathered_ns, job.ran_ns, job.settled_ns = at + 10, at + 30, at + 60, at + 100
    return job


def test_a_batch_counts_once_as_run_and_once_for_each_request() -> None:
    """Request sums count the batch's times for every request, batch sums once; rows are inferences."""
    stats = ModelStats("m", 3)
    stats.ran([settled(rows=2), settled(at=990, rows=3)], 5)
    seen = stats.snapshot()
    assert (seen.name, seen.version) == ("m", 3)
    assert (seen.inference_count, seen.execution_count, seen.success_count) == (5, 1, 2)
    assert (seen.queue_ns, seen.compute_input_ns, seen.compute_infer_ns, seen.compute_output_ns) == (20, 40, 60, 80)
    assert seen.success_ns == seen.latency_sum_ns == 200
    batch = seen.batches[5]
    assert (batch.count, batch.compute_input_ns, batch.compute_infer_ns, batch.compute_output_ns) == (1, 20, 30, 40)
    assert seen.last_inference_ms > 0


def test_latencies_fall_into_their_buckets() -> None:
    """A bound belongs to its own bucket, and what is beyond all bounds to the last."""
    stats = ModelStats("m", 1)
    for bound_s in (*LATENCY_BUCKETS_S, 99.0):
        job = settled()
        job.settled_ns = job.enqueued_ns + int(bound_s * 1e9)
        stats.ran([job], 1)
    assert stats.snapshot().latency_counts == [1] * (len(LATENCY_BUCKETS_S) + 1)


def test_odd_batch_sizes_cannot_grow_the_table() -> None:
    """Beyond the bound further sizes share a key, and no run is lost."""
    stats = ModelStats("m", 1)
    for rows in range(1, 2 * MAX_BATCH_KEYS):
        stats.ran([settled(rows=rows)], rows)
    batches = stats.snapshot().batches
    assert len(batches) == MAX_BATCH_KEYS
    assert sum(batch.count for batch in batches.values()) == 2 * MAX_BATCH_KEYS - 1


def test_a_snapshot_does_not_move() -> None:
    """What was read once is not changed by later batches."""
    stats = ModelStats("m", 1)
    stats.ran([settled()], 1)
    before = stats.snapshot()
    stats.ran([settled()], 1)
    stats.failed([settled()])
    stats.cancelled()
    stats.late(2)
    stats.rejected(3)
    assert (before.success_count, before.batches[1].count, sum(before.latency_counts)) == (1, 1, 1)
    after = stats.snapshot()
    assert (after.fail_count, after.fail_ns) == (1, 100)
    assert (after.cancelled_count, after.late_count, after.rejected_count) == (1, 2, 3)


def test_counting_from_many_threads_loses_nothing() -> None:
    """Workers count at the same time."""
    stats = ModelStats("m", 1)
    threads = [threading.Thread(target=lambda: [stats.ran([settled()], 1) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert stats.snapshot().success_count == 2000


def test_cancelling_only_marks() -> None:
    """A cancelled job is dropped at the next stop; nothing else of it changes."""
    job = Job("m", {}, request_id="r")
    job.cancel()
    assert job.is_cancelled
    assert job.error is None
    assert job.result is None
