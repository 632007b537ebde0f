"""Inline lanes: batches on the submitting thread, one short turn at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from inferd_runtime.errors import Cancelled, Closed, DeadlineExceeded
from inferd_runtime.job import Array
from inferd_runtime.scheduling.budget import CoreBudget, Share
from inferd_runtime.scheduling.inline import INLINE_TURN_NS, SLOW_RUN_NS, ThreadLoad
from tests.runtime.scheduling.sessions import DoublingSession, Receiver, assert_right, job, make_lane


class Loop:
    """An event loop's `call_soon`, turned by hand."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self.due.append(call)

    def turn(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()


class Clock:
    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


def test_what_one_tick_gathers_is_one_batch() -> None:
    """Jobs of one tick run together, on this very thread, without a worker and without permits."""
    loop, session, receiver, budget = Loop(), DoublingSession(), Receiver(), CoreBudget(1)
    budget.ask(1, Share(), 0.0)
    threads = set(threading.enumerate())
    lane = make_lane(session, receiver, defer=loop.call_soon, budget=budget)
    for i in range(5):
        lane.submit(job(float(i)))
    assert (len(loop.due), session.batches) == (1, [])
    loop.turn()
    assert [len(batch) for batch in session.batches] == [5]
    for one in receiver.jobs:
        assert_right(one)
    assert (len(receiver.calls), loop.due) == (1, [])
    assert set(threading.enumerate()) <= threads
    lane.submit(job(1.0))
    loop.turn()
    assert len(receiver.jobs) == 6
    lane.close()
    assert session.is_closed


def test_a_long_turn_gives_the_thread_back() -> None:
    """After its time a turn lets others have the thread and comes back for the rest."""
    loop, clock, receiver = Loop(), Clock(), Receiver()

    def behave(x: Array, answers: list[Array]) -> list[Array]:
        clock.now += INLINE_TURN_NS // 2
        return answers

    session = DoublingSession(behave)
    lane = make_lane(session, receiver, defer=loop.call_soon, clock=clock, batch=2)
    for i in range(8):
        lane.submit(job(float(i)))
    loop.turn()
    assert (len(receiver.jobs), len(loop.due)) == (4, 1)
    lane.submit(job(9.0))
    assert len(loop.due) == 1
    loop.turn()
    loop.turn()
    assert len(receiver.jobs) == 9
    lane.close()


def test_a_lane_that_holds_its_thread_up_leaves_it() -> None:
    """Three slow runs in a row, and a worker serves: those that wait, and all that come."""
    loop, clock, receiver = Loop(), Clock(), Receiver()
    threads: list[int] = []

    def behave(x: Array, answers: list[Array]) -> list[Array]:
        threads.append(threading.get_ident())
        clock.now += SLOW_RUN_NS + 1
        return answers

    lane = make_lane(DoublingSession(behave), receiver, defer=loop.call_soon, clock=clock, batch=1)
    for i in range(5):
        lane.submit(job(float(i)))
    while loop.due:
        loop.turn()
    receiver.wait(5)
    lane.submit(job(5.0))
    for one in receiver.wait(6):
        assert_right(one)
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [True] * 3 + [False] * 3
    assert not lane.is_inline
    assert not loop.due
    lane.close()


def test_jobs_submitted_by_the_receiver_are_served() -> None:
    """An answer that leads to a new request at once does not get lost between two turns."""
    loop, session, inner = Loop(), DoublingSession(), Receiver()

    def deliver(jobs: object) -> None:
        inner(jobs)  # type: ignore[arg-type]
        if len(inner.jobs) < 3:
            lane.submit(job(float(len(inner.jobs))))

    lane = make_lane(session, deliver, defer=loop.call_soon)
    lane.submit(job(0.0))
    while loop.due:
        loop.turn()
    assert len(inner.jobs) == 3
    lane.close()


def test_the_dead_are_swept_at_the_next_turn() -> None:
    """Cancelled and late jobs are answered and do not run; a sweep from elsewhere leaves an inline lane alone."""
    loop, clock, session, receiver = Loop(), Clock(), DoublingSession(), Receiver()
    lane = make_lane(session, receiver, defer=loop.call_soon, clock=clock)
    gone, late, alive = job(1.0), job(2.0, deadline_ns=clock.now + 100_000), job(3.0)
    for one in (gone, late, alive):
        lane.submit(one)
    gone.cancel()
    clock.now += 200_000
    lane.sweep()
    assert receiver.jobs == []
    loop.turn()
    assert isinstance(gone.error, Cancelled)
    assert isinstance(late.error, DeadlineExceeded)
    assert_right(alive)
    assert len(session.batches) == 1
    lane.close()


def test_a_surprise_does_not_end_the_turns(caplog: pytest.LogCaptureFixture) -> None:
    """After an unforeseen failure the next job is served as before."""

    def behave(x: Array, answers: list[Array]) -> list[Array]:
        if (x == 13).any():
            raise RuntimeError("surprise")
        return answers

    loop, receiver = Loop(), Receiver()
    lane = make_lane(DoublingSession(behave), receiver, defer=loop.call_soon)
    lane.submit(job(13.0))
    loop.turn()
    assert "surprise" in caplog.text
    lane.submit(job(1.0))
    loop.turn()
    assert_right(receiver.jobs[1])
    lane.close()


def test_closing_between_ticks_answers_the_waiting() -> None:
    """A lane that is closed before its turn settles its jobs, and the turn that is still due does nothing."""
    loop, session, receiver = Loop(), DoublingSession(), Receiver()
    lane = make_lane(session, receiver, defer=loop.call_soon)
    lane.submit(job(1.0))
    lane.close()
    assert isinstance(receiver.jobs[0].error, Closed)
    loop.turn()
    assert (len(receiver.jobs), session.batches) == (1, [])


def test_drain_from_another_thread() -> None:
    """While the loop turns, a drain elsewhere ends when all is answered."""
    loop, session, receiver = Loop(), DoublingSession(), Receiver()
    lane = make_lane(session, receiver, defer=loop.call_soon)
    for i in range(50):
        lane.submit(job(float(i)))
    answers: list[bool] = []
    draining = threading.Thread(target=lambda: answers.append(lane.drain(20)))
    draining.start()
    while loop.due:
        loop.turn()
    draining.join(20)
    assert (answers, len(receiver.jobs)) == ([True], 50)
    lane.close()


def test_a_busy_thread_takes_a_core() -> None:
    """Inline runs that fill half of the thread's time count as one core, however many lanes made them."""
    clock = Clock()
    load = ThreadLoad(clock)
    told = []
    for busy, passed in ((0, 100), (60, 100), (61, 100), (200, 100), (100, 100)):
        clock.now += passed
        told.append(load.cores(busy))
    assert told == [0, 1, 0, 1, 0]


def test_time_in_inline_runs_is_counted() -> None:
    """A lane knows how long its runs held the thread."""
    loop, clock = Loop(), Clock()

    def behave(x: Array, answers: list[Array]) -> list[Array]:
        clock.now += 700
        return answers

    lane = make_lane(DoublingSession(behave), Receiver(), defer=loop.call_soon, clock=clock, batch=1)
    for _ in range(3):
        lane.submit(job(1.0))
    loop.turn()
    assert lane.inline_ns == 2100
    lane.close()
