"""When a failed attempt may be repeated, and after how long: a pure decision that both clients share.

Repeated are only calls that the server surely did not act on, or whose acting twice is harmless:
- nothing was sent, because nobody listened yet: until `wait_s` has passed;
- a connection kept from an earlier call was closed, and not a byte of an answer came: at once, over a new connection.
  The server may have begun; inference and reads have no lasting effect, so they are repeated, load and unload are not;
- the server refused with 429 or 503 and a Retry-After: `retries` times.
Nothing is repeated past the call's deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from inferd.errors import ConnectionFailed, DeadlineExceeded, InferdError, NotReady, Overloaded

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5
MAX_STALE = 2


class Deadline:
    """The end of one call, connecting, sending and receiving together."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.timeout_s = timeout_s
        self._clock = clock
        self._end_s = clock() + timeout_s

    def left_s(self) -> float:
        """Seconds left; raises DeadlineExceeded when there are none."""
        left = self._end_s - self._clock()
        if left <= 0:
            raise self.exceeded()
        return left

    def exceeded(self) -> DeadlineExceeded:
        """The error for a call that ran out of time here."""
        return DeadlineExceeded(f"no answer within {self.timeout_s:g} s")


class Attempts:
    """The attempts of one call."""

    def __init__(
        self,
        deadline: Deadline,
        *,
        is_repeatable: bool,
        retries: int,
        wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deadline = deadline
        self._is_repeatable = is_repeatable
        self._retries = retries
        self._clock = clock
        self._wait_until_s = clock() + wait_s
        self._pause_s = FIRST_PAUSE_S
        self._stale = 0

    def pause_s(self, error: InferdError) -> float:
        """How long to wait before the next attempt; raises `error` when there must be none."""
        pause_s = self._pause_for(error)
        if pause_s is None or pause_s >= self._deadline.left_s():
            raise error
        return pause_s

    def _pause_for(self, error: InferdError) -> float | None:
        if isinstance(error, ConnectionFailed):
            if error.is_unsent and self._clock() + self._pause_s < self._wait_until_s:
                pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, LONGEST_PAUSE_S)
                return pause_s
            if error.is_stale and self._is_repeatable and self._stale < MAX_STALE:
                self._stale += 1
                return 0.0
            return None
        if not isinstance(error, (Overloaded, NotReady)) or not self._is_repeatable or self._retries <= 0:
            return None
        self._retries -= 1
        return error.retry_after_s
