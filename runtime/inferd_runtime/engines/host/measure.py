"""Timing a session from beside it, so that no process hop is in the figure."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Sequence

from inferd_runtime.engines import Array, Session
from inferd_runtime.engines.host.words import Measured

Clock = Callable[[], int]


def measure(
    session: Session, inputs: Sequence[Array], callers: int, seconds: float, clock_ns: Clock = time.perf_counter_ns
) -> Measured:
    """`callers` run the same inputs over and over for so long, each once at least, after a run that pays for what is
    new. `inputs` of several runs, one behind the other, take turns. Raises what a run raises."""
    count = len(session.inputs) or 1
    turns = [inputs[begin : begin + count] for begin in range(0, len(inputs), count)] or [inputs]
    start = threading.Barrier(callers)
    group = [_Caller(session, turns, round(seconds * 1e9), start, clock_ns) for _ in range(callers)]
    threads = [threading.Thread(target=caller.work, daemon=True) for caller in group]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for caller in group:
        if caller.error is not None:
            raise caller.error
    took_us = sorted(ns / 1000 for caller in group for ns in caller.took_ns)
    return Measured(
        runs=len(took_us),
        p50_us=statistics.median(took_us),
        p95_us=took_us[min(len(took_us) - 1, int(0.95 * len(took_us)))],
        runs_per_s=sum(len(caller.took_ns) / caller.lasted_ns * 1e9 for caller in group),
    )


class _Caller:
    """One that runs and notes how long each run took."""

    def __init__(
        self,
        session: Session,
        turns: Sequence[Sequence[Array]],
        span_ns: int,
        start: threading.Barrier,
        clock_ns: Clock,
    ) -> None:
        self._session = session
        self._turns = turns
        self._span_ns = span_ns
        self._start = start
        self._clock_ns = clock_ns
        self.took_ns: list[int] = []
        self.lasted_ns = 1
        self.error: Exception | None = None

    def work(self) -> None:
        try:
            self._run()
        except threading.BrokenBarrierError:
            pass  # another caller has the error
        except Exception as error:
            self.error = error
            self._start.abort()

    def _run(self) -> None:
        run, turns, clock_ns = self._session.run, itertools.cycle(self._turns), self._clock_ns
        outputs = range(len(self._session.outputs))
        for inputs in self._turns:
            run(inputs, outputs)
        self._start.wait()
        begin = before = clock_ns()
        while before - begin < self._span_ns or not self.took_ns:
            run(next(turns), outputs)
            now = clock_ns()
            self.took_ns.append(now - before)
            before = now
        self.lasted_ns = max(1, before - begin)
