"""The two currencies that all lanes share: cores, held by running batches, and bytes, held by jobs not yet settled.

`CoreBudget` is first come, first served: a batch that needs many permits cannot be overtaken for ever by small ones.
Invariant: except just after a shrink, no more permits are out than the budget's size. Any thread may call.
"""

from __future__ import annotations

import threading
from collections import deque


class _Waiter:
    """A caller in line; `granted` is written under the budget's lock, then `turn` is opened."""

    __slots__ = ("granted", "turn", "wanted")

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.granted = 0
        self.turn = threading.Event()


class CoreBudget:
    """Permits for cores; `resize` takes effect as permits come back."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a core budget needs at least one permit, got {size}")
        self._lock = threading.Lock()
        self._line: deque[_Waiter] = deque()
        self._size = size
        self._used = 0
        self._is_closed = False

    @property
    def size(self) -> int:
        return self._size

    @property
    def used(self) -> int:
        return self._used

    @property
    def free(self) -> int:
        """Permits that nobody holds."""
        return max(0, self._size - self._used)

    @property
    def waiting(self) -> int:
        """Callers in line."""
        return len(self._line)

    def acquire(self, permits: int, timeout_s: float | None = None) -> int:
        """Wait for `permits` and return how many were granted, to be handed to `release`; 0 on timeout or when closed.

        A wish beyond the budget's size is cut to the size, so that it can always run.
        """
        with self._lock:
            if self._is_closed:
                return 0
            wish = min(permits, self._size)
            if not self._line and self._used + wish <= self._size:
                self._used += wish
                return wish
            waiter = _Waiter(permits)
            self._line.append(waiter)
        if not waiter.turn.wait(timeout_s):
            self._leave_line(waiter)
        return waiter.granted

    def release(self, granted: int) -> None:
        """Give back what `acquire` returned."""
        with self._lock:
            self._used -= granted
            if self._line:
                self._admit()

    def resize(self, size: int) -> None:
        """Change the size now; running batches keep their permits until they return them."""
        with self._lock:
            self._size = max(1, size)
            self._admit()

    def close(self) -> None:
        """Wake everyone in line empty-handed and grant nothing more; idempotent."""
        with self._lock:
            self._is_closed = True
            while self._line:
                self._line.popleft().turn.set()

    def _admit(self) -> None:
        """Serve the line from its head while it fits. The lock is held."""
        while self._line:
            waiter = self._line[0]
            wish = min(waiter.wanted, self._size)
            if self._used + wish > self._size:
                return
            self._line.popleft()
            self._used += wish
            waiter.granted = wish
            waiter.turn.set()

    def _leave_line(self, waiter: _Waiter) -> None:
        """Give up waiting, unless the turn came at the last moment; those behind may now fit."""
        with self._lock:
            if not waiter.turn.is_set():
                self._line.remove(waiter)
                self._admit()


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
