"""The governor's decision: who gets cores when, and that it rests when the load does."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.scheduling.policy import (
    CALM_S,
    COOL_BY_C,
    HEAT_STEP_S,
    PRESSED_ABOVE,
    SHORTEST_WINDOW_S,
    THROTTLED_ABOVE,
    Policy,
    Stance,
    decide,
)
from tests.runtime.scheduling.loads import WINDOW_S, load

POLICY = Policy(floor=1, ceiling=8)
CALM = round(CALM_S / WINDOW_S)  # samples
MOST = 16

busy = st.floats(0, 64, allow_nan=False)
policies = st.builds(
    lambda floor, more, mode, headroom, share: Policy(
        floor, floor + more, mode, headroom=headroom, max_temperature_c=90.0, battery_share=share
    ),
    st.integers(1, 8),
    st.integers(0, 16),
    st.sampled_from(["polite", "fair"]),
    st.floats(0, 3),
    st.floats(0.1, 1),
)
samples = st.builds(
    lambda others, cores, pressure, throttled, heat, battery: replace(
        load(others, cores=cores), pressure=pressure, throttled=throttled, temperature_c=heat, on_battery=battery
    ),
    busy,
    st.integers(1, MOST),
    st.none() | st.floats(0, 1),
    st.none() | st.floats(0, 1),
    st.none() | st.floats(20, 110),
    st.none() | st.booleans(),
)


def after(stance: Stance, others: float, count: int, policy: Policy = POLICY) -> Stance:
    for _ in range(count):
        stance = decide(stance, load(others, cores=policy.ceiling), policy)
    return stance


def test_shrinks_at_once() -> None:
    """One sample of foreign load is enough to give its cores back, and the reason says so."""
    stance = decide(Stance(8), load(3.0), POLICY)
    assert (stance.size, stance.reason) == (5, "others use 3.00 of 8 cores")


def test_our_own_load_is_no_reason() -> None:
    """Working hard ourselves does not shrink the budget, nor do those work hard for whom we do it."""
    assert decide(Stance(8), load(0.1, own=8.0), POLICY).size == 8
    assert decide(Stance(8), load(0.1, own=5.0, callers=2.9), POLICY).size == 8


def test_grows_after_calm() -> None:
    """Room must last before it is taken, and then all of it is."""
    assert after(Stance(2), 0.0, CALM - 1).size == 2
    assert after(Stance(2), 0.0, CALM).size == 8


def test_grows_by_what_was_free_all_the_while() -> None:
    """One busier moment of the calm bounds what is taken after it; the rest needs a calm of its own."""
    stance = after(Stance(2), 0.0, CALM - 2)
    stance = decide(stance, load(3.0), POLICY)
    stance = decide(stance, load(0.0), POLICY)
    assert stance.size == 5
    assert after(stance, 0.0, CALM).size == 8


def test_a_busy_sample_ends_the_calm() -> None:
    """The calm begins again after load."""
    stance = after(Stance(4), 0.0, CALM - 1)
    stance = decide(stance, load(3.9), POLICY)
    assert after(stance, 0.0, CALM - 1).size == 4


def test_a_window_too_short_says_nothing() -> None:
    """A tick of a coarse counter that falls into a millisecond is no neighbour."""
    sample = replace(load(2.0), window_s=SHORTEST_WINDOW_S / 2)
    assert decide(Stance(8), sample, POLICY) == Stance(8)


def test_a_starved_neighbour_is_seen_under_pressure() -> None:
    """Half a core of use costs a core only where tasks wait for CPUs, since more may be wanted there than was had."""
    policy, starved = Policy(1, 2), load(0.6, own=1.3, cores=2)
    assert decide(Stance(2), replace(starved, pressure=PRESSED_ABOVE / 2), policy).size == 2
    stance = decide(Stance(2), replace(starved, pressure=0.9), policy)
    assert stance.size == 1
    assert after(stance, 0.6, 100, policy).size == 1


def test_no_growth_while_the_quota_stops_us() -> None:
    """More cores in a control group that is throttled would only be stopped sooner."""
    stance, throttled = Stance(2), replace(load(0.0), throttled=THROTTLED_ABOVE + 0.1)
    for _ in range(20):
        stance = decide(stance, throttled, POLICY)
    assert stance.size == 2


def test_headroom_stays_free() -> None:
    """What is left to others is left whether they use it or not."""
    policy = Policy(1, 8, headroom=2)
    assert decide(Stance(8), load(0.0), policy).size == 6
    assert after(Stance(1), 0.0, 50, policy).size == 6


def test_fair_keeps_half() -> None:
    """However much others want, half stays ours; what they leave beyond that is ours too."""
    policy = Policy(1, 8, "fair")
    assert decide(Stance(8), load(64.0), policy).size == 4
    assert decide(Stance(8), load(2.0), policy).size == 6


def test_fixed_stays_at_the_ceiling() -> None:
    """The fixed policy looks at nothing but the cores that are there."""
    hot = replace(load(8.0), temperature_c=200.0, on_battery=True)
    assert decide(Stance(2), hot, Policy(1, 6, "fixed", max_temperature_c=90, battery_share=0.5)).size == 6


@pytest.mark.parametrize("mode", ["polite", "fair", "fixed"])
def test_cores_taken_away_are_gone_at_once(mode: str) -> None:
    """When this process may use fewer cores the budget follows, below its floor too, and comes back with them."""
    policy, stance = Policy(4, 8, mode), Stance(8)
    stance = decide(stance, load(0.0, cores=3), policy)
    assert (stance.size, stance.reason) == (3, "3 cores are allowed now")
    for _ in range(CALM + 1):
        stance = decide(stance, load(0.0, cores=8), policy)
    assert stance.size == 8


def test_logical_cores_count_where_they_were_asked_for() -> None:
    """A ceiling beyond the physical cores is meant for their siblings too."""
    sample = replace(load(0.0), core_count=16, physical_count=8)
    assert decide(Stance(16), sample, Policy(1, 16, counts_siblings=True)).size == 16
    assert decide(Stance(16), sample, Policy(1, 16)).size == 8


def test_a_battery_leaves_a_share() -> None:
    """On its battery the machine gives us part of the cores, and all again on mains."""
    policy, stance = Policy(1, 8, battery_share=0.5), Stance(8)
    stance = decide(stance, replace(load(0.0), on_battery=True), policy)
    assert (stance.size, stance.reason) == (4, "the machine runs on its battery")
    assert after(stance, 0.0, CALM, policy).size == 8


@pytest.mark.parametrize(("most_c", "hot_c"), [(80.0, None), (0.0, 80.0), (80.0, 100.0)])
def test_heat_costs_a_core_at_a_time(most_c: float, hot_c: float | None) -> None:
    """A hot processor costs a core, and another when that did not help; they come back one by one once it is cool."""
    policy, stance = Policy(1, 4, max_temperature_c=most_c), Stance(4)
    hot = replace(load(0.0), temperature_c=81.0, hot_c=hot_c)
    stance = decide(stance, hot, policy)
    assert (stance.size, stance.reason) == (3, "the processor has 81.0 degrees")
    steps = round(HEAT_STEP_S / WINDOW_S)
    for _ in range(steps):
        stance = decide(stance, hot, policy)
    assert stance.size == 2
    sizes = []
    for _ in range(3 * steps + 2 * CALM):
        stance = decide(stance, replace(hot, temperature_c=80 - COOL_BY_C - 1), policy)
        sizes.append(stance.size)
    assert [size for size, _ in itertools.groupby(sizes)] == [2, 3, 4]


def test_warmth_below_the_mark_changes_nothing() -> None:
    """Between cool and hot what heat has left stays as it is."""
    policy = Policy(1, 4, max_temperature_c=80)
    stance = decide(Stance(4), replace(load(0.0), temperature_c=85.0), policy)
    for _ in range(200):
        stance = decide(stance, replace(load(0.0), temperature_c=80 - COOL_BY_C), policy)
    assert stance.size == 3


@given(st.lists(samples, max_size=50), policies, st.integers(-3, 40))
def test_never_outside_floor_and_ceiling(seen: list, policy: Policy, size: int) -> None:  # type: ignore[type-arg]
    """No load moves the size out of its bounds, and no budget is larger than the cores that are left."""
    stance = Stance(size)
    for sample in seen:
        stance = decide(stance, sample, policy)
        assert min(policy.floor, sample.physical_count) <= stance.size <= min(policy.ceiling, sample.physical_count)


@given(samples, policies, st.integers(1, 24))
def test_never_oscillates_on_a_constant_load(sample, policy: Policy, size: int) -> None:  # type: ignore[no-untyped-def]
    """Under a load that does not change the size moves in one direction at most, and comes to rest."""
    stance = Stance(size)
    sizes = []
    for _ in range(600):
        stance = decide(stance, sample, policy)
        sizes.append(stance.size)
    steps = [b - a for a, b in itertools.pairwise(sizes) if a != b]
    assert all(step > 0 for step in steps) or all(step < 0 for step in steps)
    assert len(set(sizes[-20:])) == 1


@given(busy, policies)
def test_more_load_never_means_more_cores(others: float, policy: Policy) -> None:
    """The decision is monotone in the foreign load."""
    stance = Stance(policy.ceiling)
    more = load(others + 1, cores=MOST)
    assert decide(stance, more, policy).size <= decide(stance, load(others, cores=MOST), policy).size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 4), "core floor 0"), ((5, 4), "core floor 5"), ((1, 4, "wild"), "not 'wild'")],
)
def test_a_policy_that_cannot_be_is_refused(arguments: tuple[int, int], message: str) -> None:
    """Bounds that contradict each other stop the start."""
    with pytest.raises(ValueError, match=message):
        Policy(*arguments)
