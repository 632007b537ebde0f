"""The governor's thread: what was decided takes effect, seldom where nothing is served, soon where something is."""

from __future__ import annotations

import threading

import pytest

from inferd_runtime.probe.load import LoadSample
from inferd_runtime.scheduling.budget import CoreBudget
from inferd_runtime.scheduling.governor import IDLE_LOOK_S, IDLE_LOOKS, INTERVAL_S, Governor
from inferd_runtime.scheduling.policy import Policy
from tests.runtime.scheduling.loads import load


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
    policy = Policy(1, cores)
    return Governor(budget, policy, host.sample, is_idle=lambda: host.is_idle, chore=host.chore), budget


def test_a_tick_resizes_the_budget() -> None:
    """What was decided takes effect on the budget; the sample and the reason are kept for the figures."""
    host = Host()
    governor, budget = governed(host)
    assert governor.latest is None
    host.others = 6.0
    governor.tick()
    assert budget.size == 2
    assert governor.latest is not None
    assert governor.stance.reason == "others use 6.00 of 8 cores"
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
    host, before = Host(), set(threading.enumerate())
    governor, _ = governed(host)
    governor.start()
    assert host.was_read.wait(20)
    (thread,) = (thread for thread in set(threading.enumerate()) - before if thread.name == "governor")
    governor.stop()
    governor.stop()
    assert not thread.is_alive()
