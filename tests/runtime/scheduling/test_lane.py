"""Lanes with workers: cancellation, deadlines, bounds, drains, faults, permits."""

from __future__ import annotations

import threading

import pytest

from inferd_runtime.errors import Cancelled, Closed, DeadlineExceeded, EngineFault, InvalidRequest, Overloaded
from inferd_runtime.job import Array, Job
from inferd_runtime.scheduling.budget import ByteBudget, CoreBudget, Share
from inferd_runtime.spec import Shape
from inferd_runtime.stats import ModelStats
from tests.runtime.scheduling.sessions import (
    FREE,
    SINGLE,
    WAIT_S,
    DoublingSession,
    Receiver,
    assert_right,
    eventually,
    job,
    make_lane,
    new_workers,
)


class Clock:
    """Time that stands still until told."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


def test_a_job_goes_through() -> None:
    """Submitted, run by a named worker, delivered with its own answer, counted."""
    session, receiver, stats = DoublingSession(), Receiver(), ModelStats("model", 1)
    before = threading.enumerate()
    lane = make_lane(session, receiver, stats=stats)
    (worker,) = new_workers(before)
    assert worker.name == "model:1/0"
    lane.submit(job(1.0, 2.0))
    assert_right(receiver.wait(1)[0])
    assert lane.drain(20)
    seen = stats.snapshot()
    assert (seen.inference_count, seen.execution_count, seen.success_count) == (2, 1, 1)
    lane.close()
    assert session.is_closed
    worker.join(WAIT_S)
    assert not worker.is_alive()


def test_what_gathers_during_a_run_is_the_next_batch() -> None:
    """Nothing waits for company, and company that is there comes along, up to the plan's batch."""
    session, receiver = DoublingSession(), Receiver()
    session.gate.clear()
    lane = make_lane(session, receiver, batch=4)
    lane.submit(job(0.0))
    session.wait_entered()
    for i in range(6):
        lane.submit(job(float(i)))
    session.gate.set()
    for one in receiver.wait(7):
        assert_right(one)
    assert [len(batch) for batch in session.batches] == [1, 4, 2]
    lane.close()


def test_shapes_are_grouped_over_each_other() -> None:
    """Alternating shapes make two batches, not many."""
    session, receiver = DoublingSession(), Receiver()
    session.gate.clear()
    lane = make_lane(session, receiver, spec=FREE)
    lane.submit(job(0.0, width=9))
    session.wait_entered()
    for i in range(8):
        lane.submit(job(float(i), width=2 + i % 2))
    session.gate.set()
    for one in receiver.wait(9):
        assert_right(one)
    assert [batch.shape for batch in session.batches] == [(1, 9), (4, 2), (4, 3)]
    lane.close()


def test_without_a_batch_dimension_every_job_runs_alone() -> None:
    """A model that cannot batch never sees two requests at once."""
    session, receiver = DoublingSession(), Receiver()
    session.gate.clear()
    lane = make_lane(session, receiver, spec=SINGLE)
    for i in range(5):
        lane.submit(job(float(i), 1.0))
    session.gate.set()
    for one in receiver.wait(5):
        assert_right(one)
    assert [batch.shape for batch in session.batches] == [(2, 2)] * 5
    lane.close()


def test_callers_who_vanish_harm_nobody() -> None:
    """200 of 220 callers leave, some while their batch runs: 20 get every answer right, nothing runs in vain."""
    session, receiver, stats = DoublingSession(), Receiver(), ModelStats("model", 1)
    session.gate.clear()
    held = ByteBudget(1 << 20)
    lane = make_lane(session, receiver, stats=stats, batch=8, held=held)
    jobs = [job(float(i)) for i in range(220)]
    for one in jobs:
        lane.submit(one)
    session.wait_entered()
    running = lane.running
    for i, one in enumerate(jobs):
        if i % 11:
            one.cancel()
    session.gate.set()
    receiver.wait(220)
    assert lane.drain(20)
    for i, one in enumerate(jobs):
        if i % 11:
            assert isinstance(one.error, Cancelled)
        else:
            assert_right(one)
    assert sum(len(batch) for batch in session.batches) <= 20 + running
    assert stats.snapshot().cancelled_count == 200
    assert stats.snapshot().success_count == 20
    assert held.held == 0
    lane.close()


def test_who_left_before_submitting_is_refused() -> None:
    """A cancelled job is not even queued."""
    session, receiver, stats = DoublingSession(), Receiver(), ModelStats("model", 1)
    lane = make_lane(session, receiver, stats=stats)
    gone = job(1.0)
    gone.cancel()
    with pytest.raises(Cancelled):
        lane.submit(gone)
    assert stats.snapshot().cancelled_count == 1
    lane.close()
    assert receiver.jobs == []


def test_deadlines_at_every_stage() -> None:
    """Late on arrival, late in the queue and late at the end are all told so, and counted."""
    session, receiver, stats, clock = DoublingSession(), Receiver(), ModelStats("model", 1), Clock()
    session.gate.clear()
    lane = make_lane(session, receiver, stats=stats, clock=clock)
    with pytest.raises(DeadlineExceeded, match="had passed"):
        lane.submit(job(1.0, deadline_ns=clock.now))
    running = job(2.0, deadline_ns=clock.now + 100_000)
    lane.submit(running)
    session.wait_entered()
    queued = job(3.0, deadline_ns=clock.now + 100_000)
    patient = job(4.0, deadline_ns=clock.now + 10_000_000)
    lane.submit(queued)
    lane.submit(patient)
    clock.now += 2_000_000
    session.gate.set()
    receiver.wait(3)
    assert isinstance(running.error, DeadlineExceeded)
    assert isinstance(queued.error, DeadlineExceeded)
    assert "2.0 ms went by" in str(queued.error)
    assert_right(patient)
    assert [len(batch) for batch in session.batches] == [1, 1]
    assert stats.snapshot().late_count == 3
    lane.close()


def test_a_hopeless_deadline_is_refused_at_once() -> None:
    """When the predicted finish is past the deadline, the refusal comes now and says when to try again."""
    session, receiver, stats, clock = DoublingSession(), Receiver(), ModelStats("model", 1), Clock()
    session.gate.clear()
    lane = make_lane(session, receiver, stats=stats, clock=clock, run_us=100_000.0, batch=1)
    lane.submit(job(0.0, deadline_ns=clock.now + 1))  # nothing waits yet: always tried
    session.wait_entered()
    for i in range(10):
        lane.submit(job(float(i)))
    with pytest.raises(DeadlineExceeded, match=r"500\.0 ms away.*expected in 1320\.0 ms") as refusal:
        lane.submit(job(1.0, deadline_ns=clock.now + 500_000_000))
    assert refusal.value.retry_after_s == pytest.approx(1.0)
    assert stats.snapshot().late_count == 1
    lane.submit(job(1.0, deadline_ns=clock.now + 1_320_000_100))
    session.gate.set()
    receiver.wait(12)
    lane.close()


def test_what_ran_in_vain_is_counted() -> None:
    """Rows whose caller left or whose deadline passed during the run, with their part of its time."""
    clock, stats, receiver = Clock(), ModelStats("model", 1), Receiver()

    def behave(x: Array, answers: list[Array]) -> list[Array]:
        clock.now += 4_000_000
        if len(x) == 8:
            gone.cancel()
        return answers

    session = DoublingSession(behave)
    session.gate.clear()
    lane = make_lane(session, receiver, stats=stats, clock=clock)
    lane.submit(job(0.0))
    session.wait_entered()
    gone, late, good = job(1.0, 1.0), job(*[2.0] * 5, deadline_ns=clock.now + 5_000_000), job(3.0)
    for one in (gone, late, good):
        lane.submit(one)
    session.gate.set()
    receiver.wait(4)
    assert isinstance(gone.error, Cancelled)
    assert isinstance(late.error, DeadlineExceeded)
    assert_right(good)
    assert lane.drain(20)
    seen = stats.snapshot()
    assert (seen.wasted_left_rows, seen.wasted_late_rows, seen.wasted_ns) == (2, 5, 4_000_000 * 7 // 8)
    lane.close()


def test_late_jobs_are_answered_while_no_worker_is_free() -> None:
    """A sweep answers the dead although the only worker is busy."""
    session, receiver, clock = DoublingSession(), Receiver(), Clock()
    session.gate.clear()
    lane = make_lane(session, receiver, clock=clock)
    lane.submit(job(1.0))
    session.wait_entered()
    late, alive = job(2.0, deadline_ns=clock.now + 50_000), job(3.0)
    lane.submit(late)
    lane.submit(alive)
    clock.now += 60_000
    lane.sweep()
    assert receiver.jobs == [late]
    session.gate.set()
    receiver.wait(3)
    assert_right(alive)
    lane.close()


def test_the_bound_in_jobs_refuses_with_a_time_to_retry() -> None:
    """A full queue refuses at once, is counted, and takes jobs again when there is room."""
    session, receiver, stats = DoublingSession(), Receiver(), ModelStats("model", 1)
    session.gate.clear()
    lane = make_lane(session, receiver, stats=stats, max_jobs=3, run_us=2_000_000.0, batch=1)
    lane.submit(job(0.0))
    session.wait_entered()
    for i in range(3):
        lane.submit(job(float(i)))
    with pytest.raises(Overloaded, match="3 requests wait") as refusal:
        lane.submit(job(9.0))
    assert refusal.value.retry_after_s == pytest.approx(6.0)
    assert stats.snapshot().rejected_count == 1
    session.gate.set()
    receiver.wait(4)
    assert lane.drain(20)
    lane.close()


def test_a_full_queue_makes_room_by_dropping_the_dead() -> None:
    """Callers who left do not keep others out."""
    session, receiver = DoublingSession(), Receiver()
    session.gate.clear()
    lane = make_lane(session, receiver, max_jobs=2)
    lane.submit(job(0.0))
    session.wait_entered()
    gone = [job(1.0), job(2.0)]
    for one in gone:
        lane.submit(one)
        one.cancel()
    lane.submit(job(3.0))
    assert receiver.jobs == gone
    session.gate.set()
    receiver.wait(4)
    lane.close()


def test_the_bound_in_bytes_is_shared() -> None:
    """Two models together hold no more input bytes than allowed; a request beyond the whole bound is invalid."""
    held = ByteBudget(64)
    sessions, receiver = [DoublingSession(), DoublingSession()], Receiver()
    lanes = [make_lane(session, receiver, held=held) for session in sessions]
    sessions[0].gate.clear()
    lanes[0].submit(job(*[1.0] * 8))
    with pytest.raises(Overloaded, match="input bytes"):
        lanes[1].submit(job(1.0))
    with pytest.raises(InvalidRequest, match="at most 64"):
        lanes[1].submit(job(*[1.0] * 9))
    sessions[0].gate.set()
    receiver.wait(1)
    assert lanes[0].drain(20)
    lanes[1].submit(job(1.0))
    receiver.wait(2)
    for lane in lanes:
        lane.close()


def test_a_bad_request_fails_alone_in_its_batch() -> None:
    """Values that the engine cannot take fail their own request and no other; both kinds are counted."""

    def behave(x: Array, answers: list[Array]) -> list[Array]:
        if (x == 13).any():
            raise InvalidRequest("thirteen is not allowed")
        return answers

    session, receiver, stats = DoublingSession(behave), Receiver(), ModelStats("model", 1)
    session.gate.clear()
    lane = make_lane(session, receiver, stats=stats)
    lane.submit(job(0.0))
    session.wait_entered()
    jobs = [job(float(i)) for i in (1, 13, 2)]
    for one in jobs:
        lane.submit(one)
    session.gate.set()
    receiver.wait(4)
    assert isinstance(jobs[1].error, InvalidRequest)
    assert_right(jobs[0])
    assert_right(jobs[2])
    assert lane.drain(20)
    seen = stats.snapshot()
    assert (seen.success_count, seen.fail_count, seen.execution_count) == (3, 1, 3)
    lane.close()


def test_a_worker_survives_surprises(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody foresaw fails its batch, keeps its text to the log, and the next job is served."""

    def behave(x: Array, answers: list[Array]) -> list[Array]:
        if (x == 13).any():
            raise RuntimeError("secret detail")
        return answers

    session, receiver = DoublingSession(behave), Receiver()
    lane = make_lane(session, receiver)
    lane.submit(job(13.0))
    failed = receiver.wait(1)[0]
    assert isinstance(failed.error, EngineFault)
    assert "secret" not in str(failed.error)
    assert "secret detail" in caplog.text
    lane.submit(job(1.0))
    assert_right(receiver.wait(2)[1])
    assert lane.drain(20)
    lane.close()


def test_a_receiver_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the receiver of answers raises, the lane goes on and its accounts stay right."""
    held = ByteBudget(1000)
    calls: list[int] = []

    def deliver(jobs: object) -> None:
        calls.append(1)
        raise RuntimeError("receiver")

    lane = make_lane(DoublingSession(), deliver, held=held)
    for _ in range(2):
        lane.submit(job(1.0))
        assert lane._queue.wait_quiet(20)
    assert (len(calls), held.held) == (2, 0)
    assert "receiver" in caplog.text
    lane.close()


def test_drain_under_load_answers_everything() -> None:
    """A drain refuses new jobs and lets every accepted one finish."""
    session, receiver = DoublingSession(), Receiver()
    session.gate.clear()
    lane = make_lane(session, receiver, streams=2)
    jobs = [job(float(i)) for i in range(100)]
    for one in jobs:
        lane.submit(one)
    assert not lane.drain(0.0)
    with pytest.raises(Closed):
        lane.submit(job(1.0))
    session.gate.set()
    assert lane.drain(20)
    assert len(receiver.jobs) == 100
    for one in jobs:
        assert_right(one)
    lane.close()


def test_close_settles_what_waits() -> None:
    """Closing without a drain answers the waiting with Closed, lets the running finish, then frees the session."""
    session, receiver = DoublingSession(), Receiver()
    session.gate.clear()
    lane = make_lane(session, receiver)
    running, waiting = job(1.0), job(2.0)
    lane.submit(running)
    session.wait_entered()
    lane.submit(waiting)
    closing = threading.Thread(target=lane.close)
    closing.start()
    assert isinstance(receiver.wait(1)[0].error, Closed)
    assert not session.is_closed
    session.gate.set()
    closing.join(20)
    assert_right(running)
    assert session.is_closed
    lane.close()
    with pytest.raises(Closed):
        lane.submit(job(3.0))


def test_lanes_share_the_cores() -> None:
    """Two busy models with two streams each never run more batches at once than there are permits."""
    budget, receiver = CoreBudget(3), Receiver()
    sessions = [DoublingSession(), DoublingSession()]
    for session in sessions:
        session.gate.clear()
    lanes = [make_lane(session, receiver, budget=budget, streams=2, batch=1) for session in sessions]
    for i in range(40):
        lanes[i % 2].submit(job(float(i)))
    eventually(lambda: budget.waiting >= 1)
    assert budget.used == 3
    assert sum(session.running for session in sessions) <= 3
    for session in sessions:
        session.gate.set()
    for one in receiver.wait(40):
        assert_right(one)
    for lane in lanes:
        assert lane.drain(20)
        lane.close()
    assert budget.used == 0


def test_streams_run_side_by_side() -> None:
    """A plan of two streams runs two batches at once, and threads are started only when work comes."""
    session, receiver = DoublingSession(), Receiver()
    session.gate.clear()
    before = threading.enumerate()
    lane = make_lane(session, receiver, streams=2, batch=1)
    assert len(new_workers(before)) == 1
    lane.submit(job(1.0))
    session.wait_entered()
    lane.submit(job(2.0))
    session.wait_entered()
    assert session.running == 2
    lane.submit(job(3.0))
    session.gate.set()
    receiver.wait(3)
    assert session.most_running == 2
    assert len(new_workers(before)) == 2
    lane.close()


def test_work_waits_for_permits_and_gathers_meanwhile() -> None:
    """While another model holds the cores jobs gather, and run as one batch when the permits come."""
    budget, session, receiver = CoreBudget(2), DoublingSession(), Receiver()
    held = budget.ask(2, Share(), 0.0)
    lane = make_lane(session, receiver, budget=budget, threads=2)
    jobs: list[Job] = [job(float(i)) for i in range(5)]
    for one in jobs:
        lane.submit(one)
    assert session.batches == []
    budget.release(held)
    receiver.wait(5)
    assert [len(batch) for batch in session.batches] == [5]
    lane.close()


def test_idle_streams_share_what_waits() -> None:
    """Two free workers split what gathered, instead of one taking all and the other idling."""
    budget, session, receiver = CoreBudget(2), DoublingSession(), Receiver()
    held = budget.ask(2, Share(), 0.0)
    session.gate.clear()
    lane = make_lane(session, receiver, budget=budget, streams=2)
    for i in range(9):
        lane.submit(job(float(i)))
    budget.release(held)
    session.wait_entered()
    session.wait_entered()
    assert sorted(len(batch) for batch in session.batches) == [4, 5]
    session.gate.set()
    for one in receiver.wait(9):
        assert_right(one)
    lane.close()


def test_busy_cores_are_no_reason_to_share() -> None:
    """When no permits are left for another stream, one worker takes all."""
    budget, session, receiver = CoreBudget(2), DoublingSession(), Receiver()
    held = budget.ask(1, Share(), 0.0), budget.ask(1, Share(), 0.0)
    lane = make_lane(session, receiver, budget=budget, streams=2)
    for i in range(8):
        lane.submit(job(float(i)))
    budget.release(held[0])
    receiver.wait(8)
    assert [len(batch) for batch in session.batches] == [8]
    lane.close()


IDLE = Shape(streams=1, threads=4, batch=2, rows=0, run_us=5.0)


def test_a_job_that_comes_alone_has_all_cores() -> None:
    """With a second session for an idle queue lone jobs run there, on all of its cores; jobs in company run as planned,
    and the second session comes back once requests come alone again."""
    wide, narrow, receiver, budget = DoublingSession(), DoublingSession(), Receiver(), CoreBudget(4)
    lane = make_lane(narrow, receiver, budget=budget, idle_session=wide, idle=IDLE)
    wide.gate.clear()
    lane.submit(job(0.0))
    wide.wait_entered()
    assert budget.used == 4
    lane.submit(job(1.0))
    wide.gate.set()
    receiver.wait(2)
    assert lane._queue.wait_quiet(20)
    assert (len(wide.batches), len(narrow.batches)) == (1, 1)
    for count in (1, 2, 3):
        lane.submit(job(float(count)))
        receiver.wait(2 + count)
        assert lane._queue.wait_quiet(20)
    assert (len(wide.batches), len(narrow.batches)) == (3, 2)
    for one in receiver.jobs:
        assert_right(one)
    lane.close()
    assert wide.is_closed
    assert narrow.is_closed


def test_without_free_cores_a_lone_job_runs_as_planned() -> None:
    """The second session is never waited for: where others hold cores the plan's own shape serves."""
    wide, narrow, receiver, budget = DoublingSession(), DoublingSession(), Receiver(), CoreBudget(4)
    held = budget.ask(1, Share(), 0.0)
    lane = make_lane(narrow, receiver, budget=budget, idle_session=wide, idle=IDLE)
    lane.submit(job(1.0))
    assert_right(receiver.wait(1)[0])
    budget.release(held)
    assert (len(wide.batches), len(narrow.batches)) == (0, 1)
    lane.close()


def test_more_work_keeps_its_place_in_line() -> None:
    """A lane with short runs is not made to wait a long run of another lane for each of its own."""
    budget, receiver = CoreBudget(1), Receiver()
    order: list[str] = []

    def noting(name: str) -> DoublingSession:
        def behave(x: Array, answers: list[Array]) -> list[Array]:
            order.append(name)
            return answers

        return DoublingSession(behave)

    held = budget.ask(1, Share(), 0.0)
    short = make_lane(noting("short"), receiver, budget=budget, batch=1, run_us=1000.0)
    long = make_lane(noting("long"), receiver, budget=budget, batch=1, run_us=10_000.0)
    for i in range(4):
        long.submit(job(float(i)))
    for i in range(30):
        short.submit(job(float(i)))
    eventually(lambda: budget.waiting >= 2)
    budget.release(held)
    receiver.wait(34)
    second = order.index("long", order.index("long") + 1)
    assert order[:second].count("short") >= 5
    for lane in (short, long):
        lane.close()
