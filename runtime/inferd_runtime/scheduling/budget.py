"""The two currencies that all lanes share: cores, held by running batches, and bytes, held by jobs not yet settled.

`CoreBudget` serves the lane that had the least of the cores (start-time fair queueing): a claim starts where its lane's
last one ended in core time, or where the claim served last started if that is later. What is first in line is not
overtaken, however much it wants.
A core that work without permits keeps busy is set aside, so that no batch is given it.
Invariant: except just after a shrink, no more permits are out than the budget's size. Any thread may call.
"""

from __future__ import annotations

import threading
from heapq import heappop, heappush


class Share:
    """One lane's part of the cores: where its next claim starts, in core nanoseconds. Guarded by the budget's lock."""

    __slots__ = ("due",)

    def __init__(self) -> None:
        self.due = 0.0


class Claim:
    """Permits asked for. `granted` is what was given, 0 while in line and when the budget closed."""

    __slots__ = ("gate", "granted", "wanted")

    def __init__(self, wanted: int, granted: int = 0) -> None:
        self.wanted = wanted
        self.granted = granted
        self.gate: threading.Lock | None = None  # shut while in line; the budget's own

    def wait(self) -> bool:
        """Block until the permits are there; False when the budget closed instead. To be called once."""
        if self.gate is not None:
            self.gate.acquire()
        return self.granted > 0


class CoreBudget:
    """Permits for cores; `resize` takes effect as permits come back."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a core budget needs at least one permit, got {size}")
        self._lock = threading.Lock()
        self._line: list[tuple[float, int, Claim]] = []
        self._asked = 0
        self._served = 0.0  # where the claim served last started
        self._size = self._room = size  # the room is what is not set aside
        self._used = 0
        self._is_closed = False

    @property
    def size(self) -> int:
        return self._size

    @property
    def used(self) -> int:
        """Permits that are out, and cores set aside."""
        return self._used + self._size - self._room

    @property
    def free(self) -> int:
        """Permits that nobody holds."""
        return max(0, self._room - self._used)

    @property
    def waiting(self) -> int:
        """Claims in line."""
        return len(self._line)

    def ask(self, permits: int, share: Share, run_ns: float, instead_of: Claim | None = None) -> Claim:
        """Claim `permits` for about `run_ns`, to be handed to `release` once `Claim.wait` said yes.

        A wish beyond the budget's room is cut to the room, so that it can always run. `instead_of` is given back in the
        same step, so that a lane which has more to do is in line before others are served.
        """
        with self._lock:
            if instead_of is not None:
                self._used -= instead_of.granted
            if self._is_closed:
                return Claim(permits)
            wish = min(permits, self._room)
            start = max(self._served, share.due)
            share.due = start + wish * run_ns
            if not self._line and self._used + wish <= self._room:
                self._used += wish
                self._served = start
                return Claim(permits, wish)
            claim = Claim(permits)
            claim.gate = threading.Lock()
            claim.gate.acquire()
            self._asked += 1
            heappush(self._line, (start, self._asked, claim))
            if instead_of is not None:
                self._admit()
            return claim

    def ask_now(self, permits: int, share: Share, run_ns: float) -> Claim | None:
        """A claim that is granted in full at once, or none."""
        with self._lock:
            if self._line or self._is_closed or self._used + permits > self._room:
                return None
            self._served = max(self._served, share.due)
            share.due = self._served + permits * run_ns
            self._used += permits
            return Claim(permits, permits)

    def release(self, claim: Claim) -> None:
        """Give back what was granted."""
        with self._lock:
            self._used -= claim.granted
            if self._line:
                self._admit()

    def resize(self, size: int) -> None:
        """Change the size now; running batches keep their permits until they return them."""
        with self._lock:
            self._fit(max(1, size), self._size - self._room)

    def set_aside(self, cores: int) -> None:
        """Leave so many cores to work that takes no permits; one at least stays for batches."""
        with self._lock:
            self._fit(self._size, cores)

    def _fit(self, size: int, aside: int) -> None:
        self._size = size
        self._room = max(1, size - aside)
        self._admit()

    def close(self) -> None:
        """Wake everyone in line empty-handed and grant nothing more; idempotent."""
        with self._lock:
            self._is_closed = True
            while self._line:
                _open(heappop(self._line)[-1])

    def _admit(self) -> None:
        """Serve the line from its head while it fits. The lock is held."""
        while self._line:
            start, _, claim = self._line[0]
            wish = min(claim.wanted, self._room)
            if self._used + wish > self._room:
                return
            heappop(self._line)
            self._served = start
            self._used += wish
            claim.granted = wish
            _open(claim)


def _open(claim: Claim) -> None:
    if claim.gate is not None:
        claim.gate.release()


class ByteBudget:
    """Input bytes held by all lanes' waiting and running jobs, bounded by `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._held = 0

    @property
    def held(self) -> int:
        return self._held

    def take(self, nbytes: int) -> bool:
        """Hold `nbytes` more, or change nothing and say no."""
        with self._lock:
            held = self._held + nbytes
            if held > self.limit:
                return False
            self._held = held
            return True

    def give(self, nbytes: int) -> None:
        """Give back what `take` held."""
        with self._lock:
            self._held -= nbytes
