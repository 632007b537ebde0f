"""A lane without threads: what gathered runs on the thread that submits, one short turn at a time.

It waits for no permits, since that thread is running anyway; a thread that is busy with turns costs the others a core
(`ThreadLoad`). `defer` brings the turns; only that thread calls. What was quick when it was warmed may be slow with
other values: such a lane says so, and is left to worker threads.
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
# A thread that spends this part of its time in runs takes a core.
_BUSY_SHARE = 0.5


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
        self.busy_ns = 0  # spent in runs, ever

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
                took_ns = first.settled_ns - first.started_ns
                self.busy_ns += took_ns
                self._slow_runs = self._slow_runs + 1 if took_ns > SLOW_RUN_NS else 0
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


class ThreadLoad:
    """How many cores inline runs keep busy: none or one, for they share a thread."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._last = (clock(), 0)

    def cores(self, busy_ns: int) -> int:
        """Since the last call, given what all inline lanes spent in runs until now."""
        then, before = self._last
        self._last = now, _ = self._clock(), busy_ns
        return int(busy_ns - before > _BUSY_SHARE * (now - then))
