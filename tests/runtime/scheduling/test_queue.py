"""The waiting room: bounds, grouping with look-ahead, sweeping."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.errors import Closed, InvalidRequest, Overloaded
from inferd_runtime.job import Job
from inferd_runtime.scheduling.budget import ByteBudget
from inferd_runtime.scheduling.queue import HEAD_START_NS, JobQueue, QueueLimits


class Clock:
    """A clock that moves one nanosecond a look, and further when told."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1
        return self.now


def make_queue(clock: Clock | None = None, max_jobs: int = 100, max_bytes: int = 1000) -> JobQueue:
    return JobQueue(QueueLimits(max_jobs, ByteBudget(max_bytes)), clock or Clock())


def put(
    queue: JobQueue,
    group: object,
    count: int = 1,
    rows: int = 1,
    nbytes: int = 1,
    deadline_ns: int | None = None,
    priority: int = 0,
) -> list[Job]:
    jobs = []
    for _ in range(count):
        job = Job("m", {}, deadline_ns=deadline_ns, priority=priority)
        job.group, job.rows, job.nbytes = group, rows, nbytes
        job.enqueued_ns = queue._clock()
        queue.put(job)
        jobs.append(job)
    return jobs


def test_another_shape_does_not_close_the_batch() -> None:
    """Equal shapes meet in one batch although others stand between them."""
    queue = make_queue()
    first = put(queue, "a")
    other = put(queue, "b")
    second = put(queue, "a", count=2)
    assert queue.take(16) == (first + second, [])
    assert queue.take(16) == (other, [])
    assert queue.take(16) == ([], [])


def test_the_oldest_group_goes_first() -> None:
    """A shape that keeps coming does not starve one that came before."""
    queue = make_queue()
    put(queue, "a", count=4)
    rare = put(queue, "b")
    queue.take(4)
    put(queue, "a", count=4)
    assert queue.take(4) == (rare, [])


def test_a_greater_priority_goes_first() -> None:
    """Jobs run by priority, equal ones in their order; a group goes first by its most urgent job."""
    queue = make_queue()
    plain = put(queue, "a", count=3)
    urgent = put(queue, "a", count=2, priority=2)
    middle = put(queue, "a", priority=1)
    other = put(queue, "b", priority=9)
    assert queue.take(1) == (other, [])
    assert queue.take(4) == ([*urgent, *middle, plain[0]], [])
    assert queue.take(4) == (plain[1:], [])


def test_priority_starves_nobody() -> None:
    """A job that has waited longer than the head start goes before whatever is more urgent by that much."""
    clock = Clock()
    queue = make_queue(clock)
    patient = put(queue, "a")
    clock.now += 2 * HEAD_START_NS
    urgent = put(queue, "a", priority=2)
    assert queue.take(2) == (patient + urgent, [])


def test_a_batch_is_bounded_in_rows() -> None:
    """Rows and not jobs fill a batch; a job larger than the bound runs alone."""
    queue = make_queue()
    large = put(queue, "a", rows=20)
    some = put(queue, "a", count=3, rows=6)
    assert queue.take(16) == (large, [])
    assert queue.take(16) == (some[:2], [])
    assert queue.waiting_rows == 6


def test_the_bound_in_jobs() -> None:
    """A full queue refuses and stays as it was."""
    queue = make_queue(max_jobs=2)
    put(queue, "a", count=2)
    with pytest.raises(Overloaded, match="2 requests wait"):
        put(queue, "a")
    assert (queue.waiting, queue._limits.held.held) == (2, 2)


def test_the_bound_in_bytes_covers_running_jobs() -> None:
    """Bytes are held until the answer is delivered, over all queues that share the budget."""
    held = ByteBudget(100)
    one, two = (JobQueue(QueueLimits(10, held), Clock()) for _ in range(2))
    put(one, "a", nbytes=60)
    with pytest.raises(Overloaded, match="hold 60 input bytes; the limit of 100"):
        put(two, "a", nbytes=41)
    one.take(16)
    with pytest.raises(Overloaded):
        put(two, "a", nbytes=41)
    one.done(1, 60)
    put(two, "a", nbytes=41)


def test_what_can_never_fit_is_not_told_to_wait() -> None:
    """A request larger than the whole budget is invalid, not unlucky."""
    with pytest.raises(InvalidRequest, match="at most 1000"):
        put(make_queue(), "a", nbytes=1001)


def test_dead_jobs_are_set_aside_while_the_batch_forms() -> None:
    """Cancelled and late jobs neither run nor fill the batch, wherever they stand."""
    clock = Clock()
    queue = make_queue(clock)
    jobs = put(queue, "a", count=5)
    late = put(queue, "a", deadline_ns=50)
    clock.now = 100
    jobs[0].cancel()
    jobs[3].cancel()
    batch, dead = queue.take(3)
    assert batch == [jobs[1], jobs[2], jobs[4]]
    assert dead == [jobs[0], jobs[3], *late]
    assert (queue.waiting, queue.running) == (0, 6)


def test_a_group_of_dead_jobs_does_not_waste_a_turn() -> None:
    """When everybody of the oldest group has left, the next group runs in the same turn."""
    queue = make_queue()
    dead = put(queue, "a", count=3)
    alive = put(queue, "b")
    for job in dead:
        job.cancel()
    assert queue.take(16) == (alive, dead)


def test_sweeping_takes_only_the_dead() -> None:
    """A sweep leaves the living in their order."""
    queue = make_queue()
    jobs = put(queue, "a", count=4) + put(queue, "b", count=2)
    for i in (1, 4, 5):
        jobs[i].cancel()
    assert queue.sweep() == [jobs[1], jobs[4], jobs[5]]
    assert queue.take(16) == ([jobs[0], jobs[2], jobs[3]], [])
    assert queue.take(16) == ([], [])


def test_sweeps_on_demand_are_rare() -> None:
    """Under overload the search for dead jobs does not run for every refusal."""
    clock = Clock()
    queue = make_queue(clock)
    job = put(queue, "a")[0]
    assert queue.sweep_if_due() == []
    job.cancel()
    assert queue.sweep_if_due() == []
    clock.now += 10_000_000
    assert queue.sweep_if_due() == [job]


def test_a_stopped_queue_serves_out() -> None:
    """After `stop` nothing new comes in, workers take the rest, and then their wait is over."""
    queue = make_queue()
    jobs = put(queue, "a")
    queue.stop()
    with pytest.raises(Closed):
        put(queue, "a")
    assert queue.wait()
    assert not queue.wait_quiet(0)
    assert queue.take(16) == (jobs, [])
    assert not queue.wait()
    assert not queue.wait_quiet(0)
    queue.done(1, 1)
    assert queue.wait_quiet(0)


def test_closing_wakes_waiting_workers() -> None:
    """Workers that wait for jobs go home when the queue closes."""
    queue = make_queue()
    answers: list[bool] = []
    workers = [threading.Thread(target=lambda: answers.append(queue.wait())) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert queue.close() == []
    for worker in workers:
        worker.join(20)
    assert answers == [False] * 3


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(1, 9)),
            st.tuples(st.just("take"), st.just(""), st.integers(1, 16)),
            st.tuples(st.just("cancel"), st.just(""), st.integers(0, 99)),
            st.tuples(st.just("sweep"), st.just(""), st.just(0)),
        ),
        max_size=80,
    )
)
def test_every_job_leaves_once(steps: list[tuple[str, str, int]]) -> None:
    """Whatever is put, cancelled, swept and taken: each job leaves once, batches are pure, bounded and in order."""
    queue = make_queue()
    jobs: list[Job] = []
    left: list[Job] = []
    for act, group, number in steps:
        if act == "put":
            jobs += put(queue, group, rows=number)
        elif act == "cancel" and jobs:
            jobs[number % len(jobs)].cancel()
        elif act == "sweep":
            left += queue.sweep()
        elif act == "take":
            waiting = [job for job in jobs if job not in left and not job.is_cancelled]
            batch, dead = queue.take(number)
            left += batch + dead
            assert bool(batch) == bool(waiting)
            if batch:
                assert batch[0] is waiting[0]
                assert len({job.group for job in batch}) == 1
                assert sum(job.rows for job in batch) <= number or len(batch) == 1
                assert not any(job.is_cancelled for job in batch)
        assert queue.waiting == len(jobs) - len(left)
        assert queue.waiting_rows == sum(job.rows for job in jobs if job not in left)
    left += queue.close()
    assert sorted(map(id, left)) == sorted(map(id, jobs))
