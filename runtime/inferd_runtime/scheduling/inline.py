"""A lane without threads: what gathered runs on the thread that submits, one short turn at a time.

It takes no permits, since that thread is running anyway. `defer` brings the turns; only that thread calls.
"""

from __future__ import annotations

from collections.abc import Callable

from inferd_runtime.scheduling.batch import Runner
from inferd_runtime.scheduling.desk import Desk

Defer = Callable[[Callable[[], None]], object]

# An inline lane lets others have the thread after this long.
INLINE_TURN_NS = 2_000_000


class InlineTurns:
    """Serves one queue on the submitting thread."""

    def __init__(self, desk: Desk, runner: Runner, defer: Defer, clock: Callable[[], int]) -> None:
        self._desk = desk
        self._runner = runner
        self._defer = defer
        self._clock = clock
        self.is_due = False

    def call(self) -> None:
        """A job was put and no turn is due: see to it that one comes."""
        self.is_due = True
        self._defer(self._take_turn)

    def _take_turn(self) -> None:
        """Run what gathered; come back later if that takes too long."""
        clock, desk = self._clock, self._desk
        queue = desk.queue
        end = clock() + INLINE_TURN_NS
        while True:
            batch, dead = queue.take(desk.sizing.rows)
            if dead:
                desk.bury(dead)
            if batch:
                is_whole = desk.run(self._runner, batch)
                queue.rest()
                desk.finish(batch, is_whole)
            if not queue.waiting:
                self.is_due = False
                return
            if clock() >= end:
                self._defer(self._take_turn)
                return
