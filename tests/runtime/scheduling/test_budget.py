"""The core budget and the byte budget."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.scheduling.budget import ByteBudget, CoreBudget

WAIT_S = 20.0


class Taker:
    """A thread that acquires once."""

    def __init__(self, budget: CoreBudget, permits: int) -> None:
        self.granted: int | None = None
        before = budget.waiting
        self._thread = threading.Thread(target=self._take, args=(budget, permits))
        self._thread.start()
        while budget.waiting == before and self._thread.is_alive():
            pass

    def _take(self, budget: CoreBudget, permits: int) -> None:
        self.granted = budget.acquire(permits)

    def result(self) -> int:
        self._thread.join(WAIT_S)
        assert self.granted is not None
        return self.granted


def test_permits_are_counted() -> None:
    """What is out is counted and comes back."""
    budget = CoreBudget(4)
    assert budget.acquire(3) == 3
    assert (budget.used, budget.size) == (3, 4)
    budget.release(3)
    assert budget.used == 0


def test_a_wish_beyond_the_size_is_cut() -> None:
    """A batch that wants more cores than there are still runs, with all of them."""
    budget = CoreBudget(2)
    assert budget.acquire(8) == 2


def test_timeout_gives_nothing() -> None:
    """Waiting ends with 0 permits, and the line is as it was."""
    budget = CoreBudget(1)
    budget.acquire(1)
    assert budget.acquire(1, timeout_s=0.001) == 0
    assert budget.waiting == 0
    budget.release(1)
    assert budget.acquire(1, timeout_s=0) == 1


def test_first_come_first_served() -> None:
    """A small wish does not overtake a large one that came first."""
    budget = CoreBudget(4)
    budget.acquire(3)
    large = Taker(budget, 4)
    small = Taker(budget, 1)
    assert (budget.waiting, budget.used) == (2, 3)
    budget.release(3)
    assert large.result() == 4
    assert budget.waiting == 1
    budget.release(4)
    assert small.result() == 1


def test_shrinking_waits_for_permits_to_come_back() -> None:
    """After a shrink nobody is admitted until the permits out fit the new size."""
    budget = CoreBudget(4)
    first, second = budget.acquire(2), budget.acquire(2)
    budget.resize(2)
    waiting = Taker(budget, 1)
    budget.release(first)
    assert (budget.used, budget.waiting) == (2, 1)
    budget.release(second)
    assert waiting.result() == 1


def test_a_waiting_wish_follows_the_size() -> None:
    """Someone who waits for more than the shrunken size gets the whole of it, rather than waiting for ever."""
    budget = CoreBudget(4)
    held = budget.acquire(4)
    waiting = Taker(budget, 4)
    budget.resize(1)
    budget.release(held)
    assert waiting.result() == 1


def test_growing_admits_at_once() -> None:
    """New permits go to the line without anybody releasing."""
    budget = CoreBudget(1)
    budget.acquire(1)
    waiting = Taker(budget, 1)
    budget.resize(2)
    assert waiting.result() == 1


def test_a_waiter_that_leaves_frees_those_behind() -> None:
    """When the head of the line gives up, whoever fits behind it runs."""
    budget = CoreBudget(2)
    budget.acquire(1)
    gave_up: list[int] = []
    head = threading.Thread(target=lambda: gave_up.append(budget.acquire(2, timeout_s=0.05)))
    head.start()
    while not budget.waiting:
        pass
    behind = Taker(budget, 1)
    assert behind.result() == 1
    head.join(WAIT_S)
    assert gave_up == [0]


def test_closing_wakes_all() -> None:
    """Nobody waits for permits of a closed budget."""
    budget = CoreBudget(1)
    budget.acquire(1)
    waiting = [Taker(budget, 1) for _ in range(3)]
    budget.close()
    assert [taker.result() for taker in waiting] == [0, 0, 0]
    assert budget.acquire(1) == 0


def test_a_budget_of_nothing_is_refused() -> None:
    """Without a single core nothing could ever run."""
    with pytest.raises(ValueError, match="at least one"):
        CoreBudget(0)


@given(st.lists(st.tuples(st.sampled_from("arz"), st.integers(1, 9)), max_size=60))
def test_never_more_out_than_the_size(steps: list[tuple[str, int]]) -> None:
    """Whatever is acquired, released and resized, a grant never takes the budget over its size of that moment."""
    budget = CoreBudget(4)
    out: list[int] = []
    for act, number in steps:
        if act == "a":
            granted = budget.acquire(number, timeout_s=0)
            if granted:
                out.append(granted)
                assert budget.used <= budget.size
        elif act == "r" and out:
            budget.release(out.pop(number % len(out)))
        elif act == "z":
            budget.resize(number)
        assert budget.used == sum(out)
    while out:
        budget.release(out.pop())
    assert budget.acquire(99, timeout_s=0) == budget.size


def test_bytes_are_bounded_together() -> None:
    """What does not fit is refused and changes nothing."""
    held = ByteBudget(100)
    assert held.take(60)
    assert not held.take(41)
    assert held.take(40)
    assert held.held == 100
    held.give(60)
    assert held.take(10)
