"""Who calls us is told apart from neighbours: by process, since when, for a while, and not without end."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from inferd_runtime.probe.followed import MAX_FOLLOWED, Followed
from inferd_runtime.probe.sensors import Spent

KEPT_S = 3.0


class Host:
    """Processes with what they have used, and who called last."""

    def __init__(self) -> None:
        self.spent: dict[int, Spent] = {}
        self.calling: Collection[int] = ()
        self.asked: list[int] = []
        self.now_s = 100.0
        self.callers = Followed(lambda: self.calling, self.read, KEPT_S)

    def read(self, pid: int) -> Spent | None:
        self.asked.append(pid)
        return self.spent.get(pid)

    def after(self, window_s: float = 0.5, **used: float) -> float:
        """What the callers used in a window in which processes (p41=...) came to these totals."""
        self.now_s += window_s
        for name, cpu_s in used.items():
            pid = int(name[1:])
            self.spent[pid] = Spent(self.spent[pid].started_s if pid in self.spent else 1.0, cpu_s)
        return self.callers.busy_s(self.now_s, window_s * 2)


def test_what_was_used_before_the_first_call_is_forgiven_once() -> None:
    """A newcomer's first window counts for all it can have used in it; from then on what it did use."""
    host = Host()
    host.calling = [41]
    assert host.after(p41=900.0) == 1.0
    assert host.after(p41=900.2) == pytest.approx(0.2)


def test_a_new_process_counts_from_its_start() -> None:
    """A caller that has just begun is charged no more than it used."""
    host = Host()
    host.calling = [41]
    assert host.after(p41=0.3) == pytest.approx(0.3)


def test_a_caller_is_one_for_a_while_after_its_call() -> None:
    """What it does between calls is counted; once it has stopped calling it is a neighbour like any other."""
    host = Host()
    host.calling = [41]
    host.after(p41=5.0)
    host.calling = []
    assert host.after(KEPT_S, p41=6.0) == pytest.approx(1.0)
    assert host.after(p41=6.5) == 0


def test_a_number_that_was_given_again_is_another_process() -> None:
    """Counters that start anew belong to somebody else."""
    host = Host()
    host.calling = [41]
    host.after(p41=500.0)
    host.spent[41] = Spent(77.0, 0.1)
    assert host.after() == pytest.approx(0.1)


def test_processes_that_cannot_be_read_count_for_nothing() -> None:
    """Gone, hidden, or in a world of its own (number 0): no figure, and no failure."""
    host = Host()
    host.calling = [0, 41]
    assert host.after() == 0
    assert host.asked == [41]


def test_only_so_many_are_followed() -> None:
    """A crowd of callers costs no more than the bound; one that goes makes room for another."""
    host = Host()
    host.calling = range(1, 1000)
    host.spent = {pid: Spent(1.0, 1.0) for pid in range(1, 1000)}
    host.after()
    assert len(host.asked) == MAX_FOLLOWED
    del host.spent[1]
    host.calling = range(2, 1000)
    host.after()
    host.asked.clear()
    host.after()
    assert len(set(host.asked)) == MAX_FOLLOWED
    assert 1 not in host.asked
