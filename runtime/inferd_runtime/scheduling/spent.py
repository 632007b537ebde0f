"""Sessions that nobody uses any more, kept until nobody asks for anything.

To free one takes tens of milliseconds in which nothing else of this process goes on, because the engines' Python
bindings hold the interpreter's lock meanwhile. Right after a swap that would be one slow request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from inferd_runtime.engines import Session

# They take memory: so many are kept, and so long, however busy it is.
MOST = 2
KEPT_S = 60.0


def free_now(session: Session) -> None:
    """For those that are not kept."""
    session.close()


class Spent:
    """Owns the sessions that it is given, until it closes them. For any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: list[tuple[float, Session]] = []
        self._accepted = -1
        self._is_closed = False

    def add(self, session: Session) -> None:
        """Close it soon."""
        with self._lock:
            self._kept.append((self._clock(), session))
            surplus = len(self._kept) if self._is_closed else max(len(self._kept) - MOST, 0)
        self._close_first(surplus)

    def look(self, accepted: int, *, is_quiet: bool) -> None:
        """Close what may be closed now; to be called several times a second. `accepted` counts the requests until now,
        `is_quiet` says that none is left of them."""
        is_calm = is_quiet and accepted == self._accepted
        self._accepted = accepted
        oldest = self._clock() - KEPT_S
        with self._lock:
            due = len(self._kept) if is_calm else sum(since <= oldest for since, _ in self._kept)
        self._close_first(due)

    def close(self) -> None:
        """Close all, and at once what comes later."""
        with self._lock:
            self._is_closed = True
            count = len(self._kept)
        self._close_first(count)

    def _close_first(self, count: int) -> None:
        for _ in range(count):
            with self._lock:
                if not self._kept:
                    return
                _, session = self._kept.pop(0)
            session.close()
