"""A lane without threads: what gathered runs on the thread that submits, one short turn at a time.

It takes no permits, since that thread is running anyway. `defer` brings the turns; only that thread calls. What was
quick when it was warmed may be slow with other values: such a lane says so, and is left to worker threads.
"""

from __future__ import annotations

from collections.abc import Callable

from inferd_runtime.scheduling.batch import Runner
from inferd_runtime.scheduling.desk import Desk

Defer = Callable[[Callable[[], None]], object]

# An inline lane lets others have the thread after this long.
INLINE_TURN_NS = 2_000_000
# So many runs in a row that took so long are no accident: everybody else waits meanwhile.
SLOW_RUN_NS = 20_000_000
_SLOW_RUNS = 3


class InlineTurns:
    """Serves one queue on the submitting thread. `give_up` is called once, where runs turn out to be slow; no turn
    follows."""

    def __init__(
        self, desk: Desk, runner: Runner, defer: Defer, give_up: Callable[[], None], clock: Callable[[], int]
    ) -> None:
        self._desk = desk
        self._runner = runner
        self._defer = defer
        self._give_up = give_up
        self._clock = clock
        self._slow_runs = 0
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
                first = batch[0]
                self._slow_runs = self._slow_runs + 1 if first.settled_ns - first.started_ns > SLOW_RUN_NS else 0
                desk.finish(batch, is_whole)
                if self._slow_runs == _SLOW_RUNS:
                    self._give_up()
                    return
            if not queue.waiting:
                self.is_due = False
                return
            if clock() >= end:
                self._defer(self._take_turn)
                return
