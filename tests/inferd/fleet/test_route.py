"""A call's way: what it survives, how often, and when it gives up."""

from __future__ import annotations

import pytest

from inferd import calls, errors
from inferd.errors import InferdError
from inferd.fleet.pool import Member
from inferd.fleet.route import MAX_BEGUN, Route
from inferd.retry import Deadline
from tests.inferd.fleet.test_pool import Clock, chosen, member_of, pool_of

SEVEN = ("a", "b", "c", "d", "e", "f", "g")
CALL = calls.metadata("m", None)
ORDER = calls.load("m")
UNSENT = errors.ConnectionFailed("refused", is_unsent=True)
BROKEN = errors.ConnectionFailed("reset")


class Walk:
    """A route over a pool, with its clock."""

    def __init__(
        self, *names: str, timeout_s: float = 8.0, wait_s: float = 1.0, call: calls.Call[dict[str, object]] = CALL
    ) -> None:
        self.clock = Clock()
        self.pool = pool_of(*names, clock=self.clock)
        deadline = Deadline(timeout_s, self.clock)
        self.route = Route(self.pool, call, deadline, wait_s=wait_s, clock=self.clock)

    def step(self) -> Member:
        """The next device, which must be there."""
        member = self.route.next()
        assert member is not None
        return member

    def fail(self, error: InferdError, *, was_hung_up: bool = False) -> Member:
        """Go on to the next device and fail there."""
        member = self.step()
        self.route.failed(self.pool.begin(member, CALL.path), error, was_hung_up=was_hung_up)
        return member


@pytest.mark.parametrize(
    "error",
    [
        UNSENT,
        errors.Untrusted("another certificate", is_unsent=True),
        errors.Overloaded("full", status=429),
        errors.NotReady("draining", status=503),
        errors.NotFound("m", status=404),
        errors.Unauthenticated("who", status=401),
        errors.Forbidden("no", status=403),
    ],
)
def test_refusals_go_round_every_device(error: InferdError) -> None:
    """Nothing was done, so everybody is asked, each once."""
    walk = Walk(*SEVEN)
    assert len({walk.fail(error).device.name for _ in SEVEN}) == len(SEVEN)


@pytest.mark.parametrize(
    "error",
    [
        errors.Overloaded("full", status=429),
        errors.NotFound("m", status=404),
        errors.Forbidden("no", status=403),
    ],
)
def test_what_everybody_says_is_the_answer(error: InferdError) -> None:
    """A fleet that refuses as one is not asked again."""
    walk = Walk("a", "b")
    walk.fail(error)
    walk.fail(error)
    with pytest.raises(type(error)):
        walk.route.next()


@pytest.mark.parametrize("error", [BROKEN, errors.EngineFault("boom", status=500), errors.BadResponse("what")])
def test_a_request_that_breaks_devices_does_not_visit_all(error: InferdError) -> None:
    """It may be the request's doing: a few devices, then its error."""
    walk = Walk(*SEVEN)
    for _ in range(MAX_BEGUN - 1):
        walk.fail(error)
    with pytest.raises(type(error)):
        walk.fail(error)


def test_a_device_found_dead_is_no_fault_of_the_request() -> None:
    """Calls on a device that was hung up on move on, however often that happens."""
    walk = Walk(*SEVEN)
    for _ in SEVEN:
        walk.fail(BROKEN, was_hung_up=True)


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequest("shape", status=400),
        errors.TooLarge("big", status=413),
        errors.Unsupported("codec", status=415),
        errors.DeadlineExceeded("late", status=504),
    ],
)
def test_the_callers_own_mistakes_are_told_at_once(error: InferdError) -> None:
    """No other device would say anything else."""
    walk = Walk("a", "b")
    with pytest.raises(type(error)):
        walk.fail(error)


def test_what_may_have_been_done_is_not_done_twice() -> None:
    """An order that broke off is not repeated; one that was never sent is."""
    walk = Walk("a", "b", "c", call=ORDER)  # type: ignore[arg-type]
    walk.fail(UNSENT)
    with pytest.raises(errors.ConnectionFailed):
        walk.fail(BROKEN)


def test_half_the_time_while_others_could_be_asked() -> None:
    """A device that says nothing leaves time for another; the last one gets all that is left."""
    walk = Walk("a", "b", timeout_s=8.0)
    member = walk.step()
    assert walk.route.patience_s() == pytest.approx(4.0)
    walk.clock.now_s += 4.0
    walk.route.failed(walk.pool.begin(member, CALL.path), errors.DeadlineExceeded("no answer within 4 s"))
    walk.step()
    assert walk.route.patience_s() == pytest.approx(4.0)
    walk.clock.now_s += 4.0
    with pytest.raises(errors.DeadlineExceeded, match="within 8 s"):
        walk.route.next()


def test_waiting_ends_with_the_reason() -> None:
    """While nobody can take it a call waits; then it says why, or what it met last."""
    walk = Walk()
    assert walk.route.next() is None
    walk.clock.now_s += 1.1
    with pytest.raises(errors.NoDevice, match="no device of the fleet for 'm': none found that is trusted"):
        walk.route.next()
    hasty = Walk(timeout_s=0.5)
    hasty.clock.now_s += 0.6
    with pytest.raises(errors.NoDevice):
        hasty.route.next()
    walk = Walk("a")
    walk.fail(UNSENT)
    assert walk.route.next() is None
    walk.clock.now_s += 1.1
    with pytest.raises(errors.ConnectionFailed, match="refused"):
        walk.route.next()


def test_a_device_that_comes_back_is_asked_again() -> None:
    """Waiting is not in vain, even for a device that failed this very call."""
    walk = Walk("a")
    member = walk.fail(UNSENT)
    assert walk.route.next() is None
    walk.pool.welcomed(member, frozenset({("m", "1")}))
    assert walk.step() is member


def test_a_hedge_goes_to_another_device() -> None:
    """Never to the one that has the call, and only on credit."""
    walk = Walk("a", "b")
    first = walk.step()
    second = walk.route.hedge()
    assert {first.device.name, second.device.name if second else ""} == {"a", "b"}
    assert walk.route.hedge() is None
    broke = Walk("a", "b")
    broke.step()
    while broke.pool.take_credit():
        pass
    assert broke.route.hedge() is None


def test_failing_here_tells_the_pool() -> None:
    """The next call avoids the device."""
    walk = Walk("a", "b")
    failed = walk.fail(BROKEN)
    assert chosen(walk.pool) == {"a", "b"} - {failed.device.name}
    assert member_of(walk.pool, failed.device.name).in_flight == 0
