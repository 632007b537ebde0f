"""The governor: a pure decision, and the thread that acts on it."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.probe.load import LoadSample
from inferd_runtime.scheduling.budget import CoreBudget
from inferd_runtime.scheduling.governor import (
    CALM_S,
    IDLE_LOOK_S,
    IDLE_LOOKS,
    INTERVAL_S,
    Governor,
    Policy,
    Stance,
    decide,
)

POLICY = Policy(floor=1, ceiling=8, host_cores=8)
CALM = round(CALM_S / INTERVAL_S)  # samples
loads = st.floats(0, 64, allow_nan=False)
policies = st.builds(
    lambda floor, more, cores: Policy(floor, floor + more, cores),
    st.integers(1, 8),
    st.integers(0, 16),
    st.floats(1, 32),
)


def load(others: float, own: float = 0.0, callers: float = 0.0) -> LoadSample:
    return LoadSample(
        taken_s=0.0,
        window_s=INTERVAL_S,
        host_busy_cores=others + own + callers,
        own_busy_cores=own,
        callers_busy_cores=callers,
        core_count=8,
        psi_cpu_some_avg10=None,
        throttled=None,
        temperature_c=None,
        on_battery=None,
        memory_rss_bytes=0,
        memory_available_bytes=0,
    )


def after(stance: Stance, others: float, samples: int, policy: Policy = POLICY) -> Stance:
    for _ in range(samples):
        stance = decide(stance, load(others), policy)
    return stance


def test_shrinks_at_once() -> None:
    """One sample of foreign load is enough to give its cores back."""
    assert decide(Stance(8), load(3.0), POLICY).size == 5


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


def test_fixed_stays_at_the_ceiling() -> None:
    """The fixed policy looks at nothing."""
    assert decide(Stance(2), load(8.0), Policy(1, 6, 8, "fixed")).size == 6


@given(st.lists(loads, max_size=50), policies, st.integers(-3, 40))
def test_never_outside_floor_and_ceiling(others: list[float], policy: Policy, size: int) -> None:
    """No load moves the size out of its bounds."""
    stance = Stance(size)
    for one in others:
        stance = decide(stance, load(one), policy)
        assert policy.floor <= stance.size <= policy.ceiling


@given(loads, policies, st.integers(1, 24))
def test_never_oscillates_on_a_constant_load(others: float, policy: Policy, size: int) -> None:
    """Under a load that does not change the size moves in one direction at most, and comes to rest."""
    stance = Stance(size)
    sizes = []
    for _ in range(40):
        stance = decide(stance, load(others), policy)
        sizes.append(stance.size)
    steps = [b - a for a, b in itertools.pairwise(sizes) if a != b]
    assert all(step > 0 for step in steps) or all(step < 0 for step in steps)
    assert len(set(sizes[-10:])) == 1


@given(loads, policies)
def test_more_load_never_means_more_cores(others: float, policy: Policy) -> None:
    """The decision is monotone in the foreign load."""
    stance = Stance(policy.ceiling)
    assert decide(stance, load(others + 1), policy).size <= decide(stance, load(others), policy).size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 4, 4), "core floor 0"), ((5, 4, 4), "core floor 5"), ((1, 4, 4, "wild"), "not 'wild'")],
)
def test_a_policy_that_cannot_be_is_refused(arguments: tuple[int, int, int], message: str) -> None:
    """Bounds that contradict each other stop the start."""
    with pytest.raises(ValueError, match=message):
        Policy(*arguments)


class Host:
    """A load that the test sets, with the moments at which it was read."""

    def __init__(self) -> None:
        self.others: float | Exception = 0.0
        self.is_idle = False
        self.chores = 0
        self.was_read = threading.Event()

    def sample(self) -> LoadSample:
        self.was_read.set()
        if isinstance(self.others, Exception):
            raise self.others
        return load(self.others)

    def chore(self) -> None:
        self.chores += 1


def governed(host: Host, cores: int = 8) -> tuple[Governor, CoreBudget]:
    budget = CoreBudget(cores)
    policy = Policy(1, cores, cores)
    return Governor(budget, policy, host.sample, is_idle=lambda: host.is_idle, chore=host.chore), budget


def test_a_tick_resizes_the_budget() -> None:
    """What was decided takes effect on the budget, and the sample is kept for the figures."""
    host = Host()
    governor, budget = governed(host)
    assert governor.latest is None
    host.others = 6.0
    governor.tick()
    assert budget.size == 2
    assert governor.latest is not None
    host.others = 0.0
    for _ in range(20):
        governor.tick()
    assert budget.size == 8


def test_an_idle_daemon_samples_seldom() -> None:
    """While nothing is served only every so manyth look is at the machine, the first among them."""
    host = Host()
    governor, _ = governed(host)
    host.is_idle = True
    assert governor.tick() == IDLE_LOOK_S
    assert host.chores == 1
    for _ in range(2 * IDLE_LOOKS):
        governor.tick()
    assert host.chores == 3
    host.is_idle = False
    assert governor.tick() == INTERVAL_S
    assert host.chores == 4


def test_the_whole_budget_is_back_in_a_second_and_a_half() -> None:
    """A budget at its floor is whole again that soon after work has come, once the machine is calm."""
    host = Host()
    governor, budget = governed(host)
    host.others = 8.0
    governor.tick()
    assert budget.size == 1
    host.is_idle, host.others = True, 0.0
    took_s = governor.tick()  # the work comes right after this look
    host.is_idle = False
    while budget.size < 8:
        took_s += governor.tick()
    assert took_s <= 1.5


def test_unreadable_load_keeps_the_size(caplog: pytest.LogCaptureFixture) -> None:
    """A host that stops telling its load is complained about once and changes nothing."""
    host = Host()
    governor, budget = governed(host)
    host.others = OSError("gone")
    governor.tick()
    governor.tick()
    assert budget.size == 8
    assert len(caplog.records) == 1


def test_the_thread_governs_and_stops() -> None:
    """Started it reads the load by itself; stopped it ends."""
    host = Host()
    governor, _ = governed(host)
    governor.start()
    assert host.was_read.wait(20)
    governor.stop()
    governor.stop()
    assert "governor" not in [thread.name for thread in threading.enumerate()]
