"""One call's way through a fleet: where it goes next, how long it may stay there, and which errors it survives.

Pure, beside `pool`. A call is repeated on another device only if the server surely did not act on it, or if acting
twice is harmless; the latter a few times only, so that a request which brings down whatever runs it does not visit all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from inferd.calls import Call
from inferd.errors import (
    BadResponse,
    ConnectionFailed,
    DeadlineExceeded,
    EngineFault,
    Forbidden,
    InferdError,
    NoDevice,
    NotFound,
    NotReady,
    Overloaded,
    Unauthenticated,
)
from inferd.fleet.pool import Lease, Member, Pool
from inferd.retry import Deadline

# Refused, so nothing was done; another device may not refuse.
REFUSALS = (Overloaded, NotReady, NotFound, Unauthenticated, Forbidden)
# Begun, perhaps done: repeated so many times in all.
BEGUN = (ConnectionFailed, EngineFault, BadResponse, DeadlineExceeded)
MAX_BEGUN = 3
PAUSE_S = 0.1


class Route:
    """The attempts of one call. `wait_s`: how long it waits, in all, while no device can take it."""

    def __init__(
        self,
        pool: Pool,
        call: Call[Any],
        deadline: Deadline,
        *,
        wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._call = call
        self._deadline = deadline
        self._clock = clock
        self._wait_until_s = clock() + wait_s
        self._tried: set[Member] = set()  # and those where it is under way
        self._begun = 0
        self._error: InferdError | None = None

    def next(self) -> Member | None:
        """Where to go now; None: nowhere, so ask again after `PAUSE_S` or when the pool has changed.

        Raises when waiting or the deadline is over: the last error, or NoDevice when the call was never sent.
        """
        call = self._call
        try:
            self._deadline.left_s()
        except DeadlineExceeded as error:
            raise (error if self._error else self._nobody()) from None
        member = self._pool.choose(call.model, call.version, call.path, self._tried)
        if member is not None:
            self._tried.add(member)
            return member
        if self._tried and not isinstance(self._error, (ConnectionFailed, NotReady)):
            assert self._error is not None
            raise self._error  # everybody said so, and would again
        self._tried.clear()
        if self._clock() >= self._wait_until_s:
            raise self._error or self._nobody()
        self._pool.hurry()
        return None

    def hedge(self) -> Member | None:
        """A second device, while the first has the call still under way; None where there is none, or no credit."""
        call = self._call
        member = self._pool.choose(call.model, call.version, call.path, self._tried)
        if member is None or not self._pool.take_credit():
            return None
        self._tried.add(member)
        return member

    def patience_s(self) -> float:
        """How long an attempt may take: all that is left, or half of it while another device could be asked."""
        left_s = self._deadline.left_s()
        call = self._call
        other = self._pool.choose(call.model, call.version, call.path, self._tried)
        return left_s / 2 if other is not None and self._begun + 1 < MAX_BEGUN else left_s

    def failed(self, lease: Lease, error: InferdError, *, was_hung_up: bool = False) -> None:
        """Note an attempt's error; raises it when the call ends with it.

        `was_hung_up`: the connection broke because the device was found dead, which is no fault of the request.
        """
        self._pool.failed(lease, error)
        is_refused = isinstance(error, REFUSALS) or (isinstance(error, ConnectionFailed) and error.is_unsent)
        if not is_refused:
            if not isinstance(error, BEGUN) or error.status == 504 or not self._call.is_repeatable:
                raise error
            self._begun += not was_hung_up
            if self._begun >= MAX_BEGUN:
                raise error
        self._error = error

    def _nobody(self) -> NoDevice:
        model = f" for '{self._call.model}'" if self._call.model else ""
        reasons = self._pool.refusals(self._call.model, self._call.version)[:8]
        return NoDevice(f"no device of the fleet{model}: " + ("; ".join(reasons) or "none found that is trusted"))
