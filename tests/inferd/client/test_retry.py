"""The decision to repeat, on a clock of its own."""

from __future__ import annotations

import pytest

from inferd.errors import ConnectionFailed, DeadlineExceeded, InferdError, NotReady, Overloaded
from inferd.retry import LONGEST_PAUSE_S, MAX_STALE, Attempts, Deadline


class Clock:
    """Seconds that pass when told."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def attempts(clock: Clock, *, is_repeatable: bool = True, retries: int = 0, wait_s: float = 0.0) -> Attempts:
    deadline = Deadline(10, clock)
    return Attempts(deadline, is_repeatable=is_repeatable, retries=retries, wait_s=wait_s, clock=clock)


def test_a_deadline_runs_out() -> None:
    """It tells what is left, then raises with what was allowed."""
    clock = Clock()
    deadline = Deadline(10, clock)
    clock.now_s += 4
    assert deadline.left_s() == 6
    clock.now_s += 6
    with pytest.raises(DeadlineExceeded, match="within 10 s"):
        deadline.left_s()


def test_waiting_for_a_daemon_slows_down_and_ends() -> None:
    """Pauses double up to half a second; after `wait_s` the error comes through."""
    clock, error = Clock(), ConnectionFailed("refused", is_unsent=True)
    tries = attempts(clock, wait_s=5)
    pauses: list[float] = []

    def keep_trying() -> None:
        while True:
            pauses.append(tries.pause_s(error))
            clock.now_s += pauses[-1]

    with pytest.raises(ConnectionFailed):
        keep_trying()
    assert pauses[:3] == [0.02, 0.04, 0.08]
    assert max(pauses) == LONGEST_PAUSE_S
    assert 4 < sum(pauses) <= 5


def test_stale_connections_are_replaced_a_bounded_number_of_times() -> None:
    """At once, and only for calls that may be repeated."""
    error = ConnectionFailed("closed", is_stale=True)
    tries = attempts(Clock())
    assert [tries.pause_s(error) for _ in range(MAX_STALE)] == [0.0] * MAX_STALE
    with pytest.raises(ConnectionFailed):
        tries.pause_s(error)
    with pytest.raises(ConnectionFailed):
        attempts(Clock(), is_repeatable=False).pause_s(error)


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("full", status=429), Overloaded("full", retry_after_s=11), InferdError("other", retry_after_s=0),
        ConnectionFailed("broke"), ConnectionFailed("refused", is_unsent=True), DeadlineExceeded("late"),
    ],
)  # fmt: skip
def test_other_errors_come_through(error: InferdError) -> None:
    """No Retry-After, one beyond the deadline, a break in mid-call, nobody there: not repeated."""
    with pytest.raises(type(error)):
        attempts(Clock(), retries=3).pause_s(error)


def test_retries_are_counted() -> None:
    """Each 429 or 503 uses one up."""
    tries = attempts(Clock(), retries=2)
    assert tries.pause_s(Overloaded("full", retry_after_s=0.5)) == 0.5
    assert tries.pause_s(NotReady("loading", retry_after_s=1)) == 1
    with pytest.raises(Overloaded):
        tries.pause_s(Overloaded("full", retry_after_s=0.5))
