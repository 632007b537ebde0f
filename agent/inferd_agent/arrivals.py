"""Requests on their way in, and the inline runs that wait a moment for them so that they share a batch.

A message that has been announced comes within microseconds, and running one request after the other costs more than
that. Whoever announces and does not send holds up others once, for MOMENT_S.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MOMENT_S = 0.001

Act = Callable[[], None]


class Arrivals:
    """For one loop, and on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._coming = 0
        self._round = 0
        self._waiting: list[Act] = []
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> int:
        """A request is on its way in; `end` wants the number that this gives."""
        self._coming += 1
        return self._round

    def end(self, number: int) -> None:
        """It is there, or will not come. What is done with it before the loop goes on is done before `after`'s acts."""
        if number != self._round:  # nobody waits for it any more
            return
        self._coming -= 1
        if self._waiting and not self._coming:
            self._loop.call_soon(self._look)

    def after(self, act: Act) -> None:
        """Run `act` now, or when the requests that are on their way have come."""
        if not self._coming:
            act()
            return
        self._waiting.append(act)
        if self._timer is None:
            self._timer = self._loop.call_later(MOMENT_S, self._give_up)

    def _look(self) -> None:
        if not self._coming:
            self._run()

    def _give_up(self) -> None:
        """Those that have not come are not waited for again."""
        self._round += 1
        self._coming = 0
        self._run()

    def _run(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        acts, self._waiting = self._waiting, []
        for act in acts:
            self._loop.call_soon(act)
