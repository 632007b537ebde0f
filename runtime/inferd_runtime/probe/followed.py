"""The CPU time of processes that belong to our work: those who call us from this machine, and those that we started.

They are told by process numbers. The kernel gives those again, so a process is its number and its start. How much a
process had used before it was first named is unknown: for that one window it is forgiven all that it can have used.
Bounded: only so many are followed, and each only for a while after it was last named.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from inferd_runtime.probe.sensors import Spent

MAX_FOLLOWED = 64


@dataclass(slots=True)
class _Process:
    spent: Spent
    named_s: float


class Followed:
    """Follows the processes that `pids()` names, until `kept_s` after they were last named; `spent(pid)` is None for
    one that is gone or hidden from us."""

    def __init__(
        self, pids: Callable[[], Collection[int]], spent: Callable[[int], Spent | None], kept_s: float = 0.0
    ) -> None:
        self._pids = pids
        self._spent = spent
        self._kept_s = kept_s
        self._known: dict[int, _Process] = {}

    def busy_s(self, now_s: float, most_s: float) -> float:
        """CPU seconds that they used since this was last asked; `most_s` is all that one can have used since."""
        self._note(now_s)
        return sum(self._count(pid, most_s) for pid in tuple(self._known))

    def _note(self, now_s: float) -> None:
        known = self._known
        for pid in self._pids():
            if pid in known:
                known[pid].named_s = now_s
            elif len(known) < MAX_FOLLOWED and pid > 0:  # 0 is a process in a world that we cannot see
                known[pid] = _Process(Spent(-1.0, 0.0), now_s)
        for pid in [pid for pid, process in known.items() if now_s - process.named_s > self._kept_s]:
            del known[pid]

    def _count(self, pid: int, most_s: float) -> float:
        now = self._spent(pid)
        if now is None:
            del self._known[pid]
            return 0.0
        process = self._known[pid]
        before, process.spent = process.spent, now
        used_s = now.cpu_s - before.cpu_s if now.started_s == before.started_s else now.cpu_s
        return min(max(0.0, used_s), most_s)
