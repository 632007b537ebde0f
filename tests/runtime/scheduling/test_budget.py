"""The core budget and the byte budget."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.scheduling.budget import ByteBudget, Claim, CoreBudget, Share

WAIT_S = 20.0


def ask(budget: CoreBudget, permits: int, share: Share | None = None, run_ns: float = 1.0) -> Claim:
    return budget.ask(permits, share or Share(), run_ns)


def test_permits_are_counted() -> None:
    """What is out is counted and comes back."""
    budget = CoreBudget(4)
    claim = ask(budget, 3)
    assert claim.wait()
    assert (claim.granted, budget.used, budget.free, budget.size) == (3, 3, 1, 4)
    budget.release(claim)
    assert budget.used == 0


def test_a_wish_beyond_the_size_is_cut() -> None:
    """A batch that wants more cores than there are still runs, with all of them."""
    assert ask(CoreBudget(2), 8).granted == 2


def test_a_core_set_aside_is_given_to_nobody() -> None:
    """Batches have what is left, one core at least, and all again when it comes back."""
    budget = CoreBudget(3)
    budget.set_aside(1)
    assert (budget.size, budget.used, budget.free) == (3, 1, 2)
    assert ask(budget, 3).granted == 2
    waiting = ask(budget, 1)
    assert (waiting.granted, budget.ask_now(1, Share(), 1.0)) == (0, None)
    budget.set_aside(0)
    assert (waiting.granted, budget.used) == (1, 3)
    budget.resize(1)
    budget.set_aside(1)
    assert (budget.free, budget.used) == (0, 3)


def test_waiting_ends_when_permits_come_back() -> None:
    """Whoever waits in line goes on with the permits of whoever is done."""
    budget = CoreBudget(1)
    first, second = ask(budget, 1), ask(budget, 1)
    granted: list[bool] = []
    waiter = threading.Thread(target=lambda: granted.append(second.wait()))
    waiter.start()
    assert (second.granted, budget.waiting) == (0, 1)
    budget.release(first)
    waiter.join(WAIT_S)
    assert (granted, second.granted, budget.used) == ([True], 1, 1)


def test_first_come_first_served() -> None:
    """A small wish does not overtake a large one that came first."""
    budget = CoreBudget(4)
    held = ask(budget, 3)
    large, small = ask(budget, 4), ask(budget, 1)
    assert (budget.waiting, budget.used) == (2, 3)
    budget.release(held)
    assert (large.granted, small.granted) == (4, 0)
    budget.release(large)
    assert small.granted == 1


def test_a_lane_that_had_less_goes_first() -> None:
    """Short and long batches on one core get equal time, however many short ones that takes."""
    budget, long, short = CoreBudget(1), Share(), Share()
    claims = {"long": ask(budget, 1, long, 10.0), "short": ask(budget, 1, short, 1.0)}
    served = ""
    for _ in range(220):
        name = next(name for name, claim in claims.items() if claim.granted)
        served += name[0]
        share, run_ns = (long, 10.0) if name == "long" else (short, 1.0)
        claims[name] = budget.ask(1, share, run_ns, instead_of=claims[name])
    assert served.count("l") == pytest.approx(20, abs=1)
    assert "s" * 12 not in served


def test_cores_count_and_not_batches() -> None:
    """A lane that takes all four cores for a run gets as many core seconds as four that take one each."""
    budget, wide, narrow = CoreBudget(4), Share(), Share()
    turns: list[str] = []
    held = ask(budget, 4, Share(), 0.0)
    line = [("wide", ask(budget, 4, wide)) for _ in range(3)] + [("narrow", ask(budget, 1, narrow)) for _ in range(9)]
    budget.release(held)
    while line:
        name, claim = next(one for one in line if one[1].granted)
        turns.append(name)
        line.remove((name, claim))
        budget.release(claim)
    assert turns[:6] == ["wide", "narrow", "narrow", "narrow", "narrow", "wide"]


def test_idling_saves_nothing_up() -> None:
    """A lane that was quiet for long shares from now on, and does not make up for the past."""
    budget, busy, late = CoreBudget(1), Share(), Share()
    for _ in range(100):
        budget.release(ask(budget, 1, busy, 5.0))
    held = ask(budget, 1, busy, 5.0)
    line = [("late", ask(budget, 1, late, 5.0)) for _ in range(3)] + [("busy", ask(budget, 1, busy, 5.0))]
    budget.release(held)
    order = []
    while line:
        name, claim = next(one for one in line if one[1].granted)
        order.append(name)
        line.remove((name, claim))
        budget.release(claim)
    assert order.index("busy") <= 2


def test_giving_back_and_asking_is_one_step() -> None:
    """Who has more to do is in line before its own permits go to others."""
    budget, little, much = CoreBudget(1), Share(), Share()
    held = ask(budget, 1, little, 1.0)
    other = ask(budget, 1, much, 100.0)
    budget.release(held)
    assert other.granted
    waiting = ask(budget, 1, little, 1.0)
    again = budget.ask(1, much, 100.0, instead_of=other)
    assert (waiting.granted, again.granted) == (1, 0)


def test_asking_for_now_or_never() -> None:
    """All the permits at once, or none and nobody is disturbed."""
    budget = CoreBudget(2)
    claim = budget.ask_now(2, Share(), 1.0)
    assert claim is not None
    assert claim.wait()
    assert budget.ask_now(1, Share(), 1.0) is None
    waiting = ask(budget, 2)
    budget.release(claim)
    assert waiting.granted == 2
    budget.release(waiting)
    assert budget.ask_now(3, Share(), 1.0) is None
    assert (budget.used, budget.waiting) == (0, 0)


def test_shrinking_waits_for_permits_to_come_back() -> None:
    """After a shrink nobody is admitted until the permits out fit the new size."""
    budget = CoreBudget(4)
    first, second = ask(budget, 2), ask(budget, 2)
    budget.resize(2)
    waiting = ask(budget, 1)
    budget.release(first)
    assert (budget.used, waiting.granted, budget.free) == (2, 0, 0)
    budget.release(second)
    assert waiting.granted == 1


def test_a_waiting_wish_follows_the_size() -> None:
    """Someone who waits for more than the shrunken size gets the whole of it, rather than waiting for ever."""
    budget = CoreBudget(4)
    held = ask(budget, 4)
    waiting = ask(budget, 4)
    budget.resize(1)
    budget.release(held)
    assert waiting.granted == 1


def test_growing_admits_at_once() -> None:
    """New permits go to the line without anybody releasing."""
    budget = CoreBudget(1)
    ask(budget, 1)
    waiting = ask(budget, 1)
    budget.resize(2)
    assert waiting.granted == 1


def test_closing_wakes_all() -> None:
    """Nobody waits for permits of a closed budget."""
    budget = CoreBudget(1)
    ask(budget, 1)
    waiting = [ask(budget, 1) for _ in range(3)]
    budget.close()
    assert [claim.wait() for claim in waiting] == [False] * 3
    assert not ask(budget, 1).wait()
    assert budget.ask_now(1, Share(), 1.0) is None


def test_a_budget_of_nothing_is_refused() -> None:
    """Without a single core nothing could ever run."""
    with pytest.raises(ValueError, match="at least one"):
        CoreBudget(0)


@given(st.lists(st.tuples(st.sampled_from("anrxz"), st.integers(1, 9), st.integers(0, 2)), max_size=60))
def test_never_more_out_than_the_size(steps: list[tuple[str, int, int]]) -> None:
    """Whatever three lanes claim, swap and give back, and however the size changes: no grant takes the budget over its
    size of that moment, nobody who fits waits, and all are served in the end."""
    budget, shares = CoreBudget(4), [Share() for _ in range(3)]
    claims: list[Claim] = []
    for act, number, lane in steps:
        out = [claim for claim in claims if claim.granted]
        before = budget.used
        if act == "a":
            claims.append(ask(budget, number, shares[lane], float(number)))
        elif act == "n":
            claim = budget.ask_now(number, shares[lane], 1.0)
            claims += [claim] if claim else []
        elif act == "r" and out:
            claims.remove(out[number % len(out)])
            budget.release(out[number % len(out)])
        elif act == "x" and out:
            old = out[number % len(out)]
            claims.remove(old)
            claims.append(budget.ask(number, shares[lane], 1.0, instead_of=old))
        elif act == "z":
            budget.resize(number)
        assert budget.used == sum(claim.granted for claim in claims)
        assert budget.used <= max(budget.size, before)
        assert budget.waiting == sum(not claim.granted for claim in claims)
        assert not (budget.waiting and budget.used == 0)
    while claims:
        done = next(claim for claim in claims if claim.granted)
        claims.remove(done)
        budget.release(done)
    assert (budget.used, budget.waiting) == (0, 0)


def test_bytes_are_bounded_together() -> None:
    """What does not fit is refused and changes nothing."""
    held = ByteBudget(100)
    assert held.take(60)
    assert not held.take(41)
    assert held.take(40)
    assert held.held == 100
    held.give(60)
    assert held.take(10)
