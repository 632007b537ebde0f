"""The waiting room: bounds, grouping with look-ahead, sweeping."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.errors import Closed, DeadlineExceeded, InvalidRequest, Overloaded
from inferd_runtime.job import Job
from inferd_runtime.scheduling.budget import ByteBudget
from inferd_runtime.scheduling.profile import Profile
from inferd_runtime.scheduling.queue import JobQueue, QueueLimits
from inferd_runtime.scheduling.turns import HEAD_START_NS


class Clock:
    """A clock that moves one nanosecond a look, and further when told."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1
        return self.now


# A run takes no time.
AT_ONCE = Profile((), 0.0, 64)
# A row takes a millisecond, alone or together.
MS_A_ROW = Profile(((1, 1000.0), (64, 64_000.0)), 1000.0, 64)
MS = 1_000_000


def make_queue(
    clock: Clock | None = None,
    max_jobs: int = 100,
    max_bytes: int = 1000,
    profile: Profile = AT_ONCE,
    row_ns: float = 0.0,
) -> JobQueue:
    return JobQueue(QueueLimits(max_jobs, ByteBudget(max_bytes)), clock or Clock(), profile, row_ns)


def put(
    queue: JobQueue,
    group: object,
    count: int = 1,
    rows: int = 1,
    nbytes: int = 1,
    deadline_ns: int | None = None,
    priority: int = 0,
    principal: str = "",
    batch_rows: int = 16,
) -> list[Job]:
    jobs = []
    for _ in range(count):
        job = Job("m", {}, deadline_ns=deadline_ns, priority=priority, principal=principal)
        job.group, job.rows, job.nbytes = group, rows, nbytes
        job.enqueued_ns = queue._clock()
        queue.put(job, batch_rows)
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
    one, two = (JobQueue(QueueLimits(10, held), Clock(), AT_ONCE) for _ in range(2))
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


def test_who_floods_the_queue_lines_up_behind_itself() -> None:
    """Who comes later with little goes before the backlog of one that sent much, and both then alternate."""
    queue = make_queue(row_ns=MS)
    flood = put(queue, "a", count=20, principal="greedy")
    guest = put(queue, "a", count=3, principal="modest")
    order = [queue.take(1)[0][0] for _ in range(8)]
    assert order[0] is flood[0]
    assert [order.index(job) for job in guest] == [1, 3, 5]


def test_equal_floods_get_equal_parts() -> None:
    """Two principals that never stop get half each, although one started earlier and sends ten times as much."""
    clock = Clock()
    queue = make_queue(clock, max_jobs=10_000, max_bytes=10_000, row_ns=MS)
    put(queue, "a", count=100, principal="early")
    served: list[str] = []
    for _ in range(200):
        put(queue, "a", count=10, principal="early")
        put(queue, "a", principal="steady")
        clock.now += MS
        served += [job.principal for job in queue.take(1)[0]]
    assert served.count("steady") == pytest.approx(100, abs=10)


def test_debts_are_forgotten_with_the_queue() -> None:
    """Who had the model alone before is not held to it when others come."""
    queue = make_queue(row_ns=1000 * MS)
    put(queue, "a", count=5, principal="before")
    queue.take(16)
    queue.rest()
    mine = put(queue, "a", principal="before")
    other = put(queue, "a", principal="other")
    assert queue.take(16) == (mine + other, [])


def test_a_batch_ends_where_a_deadline_would_be_missed() -> None:
    """Jobs that would make an earlier one late wait for the next batch; without deadlines they come along."""
    clock = Clock()
    queue = make_queue(clock, profile=MS_A_ROW)
    urgent = put(queue, "a", deadline_ns=clock.now + 3 * MS + 1000)
    others = put(queue, "a", count=7)
    assert queue.take(16) == (urgent + others[:2], [])
    assert queue.take(16) == (others[2:], [])


def test_who_cannot_be_served_in_time_makes_room() -> None:
    """Among others a job that no run can answer in time is set aside; alone it is tried."""
    clock = Clock()
    queue = make_queue(clock, profile=MS_A_ROW)
    hopeless = put(queue, "a", deadline_ns=clock.now + MS // 2)
    good = put(queue, "a")
    assert queue.take(16) == (good, hopeless)
    queue.rest()
    alone = put(queue, "a", deadline_ns=clock.now + MS // 2)
    assert queue.take(16) == (alone, [])


def expected_ms(queue: JobQueue, clock: Clock, batch_rows: int = 4, **more: object) -> float:
    """In how many milliseconds a job that lines up now would be done, as its refusal says."""
    with pytest.raises(DeadlineExceeded) as refusal:
        put(queue, "a", deadline_ns=clock.now + 1, batch_rows=batch_rows, **more)  # type: ignore[arg-type]
    return float(str(refusal.value).split()[-2])


def test_a_predicted_finish_past_the_deadline_is_refused() -> None:
    """The end of a job's run: what runs now, full batches ahead at the lane's pace, then its own batch."""
    clock = Clock()
    queue = make_queue(clock, profile=MS_A_ROW, row_ns=MS)
    queue.caution = 1.0
    clock.now = 1000 * MS
    put(queue, "a")
    queue.take(4)
    assert expected_ms(queue, clock) == 1 + 1
    put(queue, "a", count=3)
    assert expected_ms(queue, clock) == 1 + 4
    put(queue, "a", count=7)
    assert expected_ms(queue, clock) == 1 + 8 + 3
    assert expected_ms(queue, clock, priority=1) == 1 + 1
    assert expected_ms(queue, clock, principal="modest") == 1 + 1
    clock.now += MS // 2
    assert expected_ms(queue, clock) == 0.5 + 8 + 3
    before = queue.waiting, queue.accepted, queue._limits.held.held
    put(queue, "a", deadline_ns=clock.now + 12 * MS, batch_rows=4)
    assert (queue.waiting, queue.accepted, queue._limits.held.held) == tuple(count + 1 for count in before)


def test_missed_deadlines_make_careful() -> None:
    """Every deadline missed stretches the forecasts, and many that are met undo it: a small share stays missed."""
    clock = Clock()
    queue = make_queue(clock, profile=MS_A_ROW, row_ns=MS)
    clock.now = 1000 * MS
    put(queue, "a")
    queue.take(4)
    assert queue.caution == pytest.approx(1.1)
    queue.learn(met=0, missed=3)
    assert queue.caution == pytest.approx(1.15)
    assert expected_ms(queue, clock) == pytest.approx(2 * 1.15)
    queue.learn(met=500, missed=0)
    assert queue.caution == pytest.approx(1.1)
    for _ in range(100):
        queue.learn(met=0, missed=1)
    assert expected_ms(queue, clock) == pytest.approx(2 * 2)
    queue.learn(met=100_000, missed=0)
    assert expected_ms(queue, clock) == pytest.approx(2)


def test_a_refusal_says_when_to_come_again() -> None:
    """Retry-After is the time that those who wait now take, within bounds."""
    clock = Clock()
    queue = make_queue(clock, max_jobs=3, profile=MS_A_ROW, row_ns=100 * MS)
    put(queue, "a", count=3)
    with pytest.raises(Overloaded) as refusal:
        put(queue, "a")
    assert refusal.value.retry_after_s == pytest.approx(0.3)
    queue.row_ns = 1.0
    with pytest.raises(Overloaded) as refusal:
        put(queue, "a")
    assert refusal.value.retry_after_s == 0.05


def test_an_idle_lane_tries_everything() -> None:
    """With nothing waiting and a worker free nobody is refused for what earlier runs took."""
    clock = Clock()
    queue = make_queue(clock, profile=MS_A_ROW, row_ns=MS)
    hasty = put(queue, "a", deadline_ns=clock.now + 2000)
    assert queue.take(4) == (hasty, [])
    assert expected_ms(queue, clock) > 0
    idle = threading.Thread(target=queue.wait)
    idle.start()
    while not queue._idle:
        pass
    put(queue, "a", deadline_ns=clock.now + 2000)
    idle.join(20)
    assert queue.waiting == 1


def test_the_pace_is_measured_while_jobs_wait() -> None:
    """The time between two takes counts where jobs waited all the while, and only there."""
    clock = Clock()
    queue = make_queue(clock, row_ns=MS)
    put(queue, "a", count=40)
    for _ in range(10):
        queue.take(4)
        queue.rest()
        clock.now += 20 * MS
    assert queue.row_ns == pytest.approx(5 * MS, rel=0.15)
    pace = queue.row_ns
    clock.now += 1000 * MS
    put(queue, "a")
    queue.take(4)
    assert queue.row_ns == pace


def test_who_comes_alone_is_known() -> None:
    """One job waits, none runs, and neither met another when it came: then it may have the machine."""
    queue = make_queue()

    def serve(count: int) -> bool:
        put(queue, "a", count=count)
        is_alone = queue.is_alone()
        queue.take(16)
        queue.rest()
        return is_alone

    assert [serve(1), serve(1), serve(2), serve(1), serve(1)] == [True, True, False, False, True]
    put(queue, "a")
    queue.take(16)
    put(queue, "a")
    assert not queue.is_alone()


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
