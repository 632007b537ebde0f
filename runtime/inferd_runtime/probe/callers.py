"""The CPU time of those who call us from this machine: they are busy because we answer, so they are no reason to yield.

Who calls is told by process numbers. The kernel gives those again, so a process is its number and its start. How much a
process used before it first called is unknown: for that one window it is forgiven all that it can have used. Bounded:
only so many callers are followed, and each only for a while after its last call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

MAX_CALLERS = 64
# A process that called counts as a caller for so long: what it does between two calls belongs to them.
KEPT_S = 3.0


class Spent(NamedTuple):
    """What a process has used: CPU seconds of all its threads since it started, at a time that tells it from others."""

    started_s: float
    cpu_s: float


@dataclass(slots=True)
class _Caller:
    spent: Spent
    called_s: float


class Callers:
    """Follows the processes that `pids()` names; `spent(pid)` is None for one that is gone or hidden from us."""

    def __init__(self, pids: Callable[[], Collection[int]], spent: Callable[[int], Spent | None]) -> None:
        self._pids = pids
        self._spent = spent
        self._known: dict[int, _Caller] = {}

    def busy_s(self, now_s: float, most_s: float) -> float:
        """CPU seconds that callers used since this was last asked; `most_s` is all that one can have used since."""
        self._note_calls(now_s)
        return sum(self._count(pid, most_s) for pid in tuple(self._known))

    def _note_calls(self, now_s: float) -> None:
        known = self._known
        for pid in self._pids():
            if pid in known:
                known[pid].called_s = now_s
            elif len(known) < MAX_CALLERS and pid > 0:  # 0 is a process in a world that we cannot see
                known[pid] = _Caller(Spent(-1.0, 0.0), now_s)
        for pid in [pid for pid, caller in known.items() if now_s - caller.called_s > KEPT_S]:
            del known[pid]

    def _count(self, pid: int, most_s: float) -> float:
        now = self._spent(pid)
        if now is None:
            del self._known[pid]
            return 0.0
        caller = self._known[pid]
        before, caller.spent = caller.spent, now
        used_s = now.cpu_s - before.cpu_s if now.started_s == before.started_s else now.cpu_s
        return min(max(0.0, used_s), most_s)
