"""Closed- and open-loop load on anything that can be awaited, with latencies free of coordinated omission.

Closed loop: `concurrency` callers, each sends its next request when the answer is there. Open loop: requests are due at
Poisson arrival times whatever the daemon does, and latency counts from the time a request was *due*, so that a stall,
there or here, shows in every request it held up. Requests in flight are bounded; those beyond count as dropped. What is
kept of a request is eight bytes.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field

import numpy as np

from inferd.errors import InferdError

Send = Callable[[], Awaitable[object]]
Tick = Callable[[float], None]
MAX_IN_FLIGHT = 4096
TICK_S = 0.1
# A caller that was refused comes back after this, instead of counting the same refusal a hundred thousand times.
REFUSED_PAUSE_S = 0.01
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99_9": 99.9}


@dataclass(slots=True)
class Outcome:
    """What a run saw. `latencies_s` are of answered requests, `errors` count the others by kind."""

    duration_s: float = 0.0
    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    is_interrupted: bool = False

    def summary(self, rows: int) -> dict[str, object]:
        """Figures with stable keys; percentiles are exact, over every request that was answered, else null."""
        done = len(self.latencies_s)
        per_s = done / self.duration_s if self.duration_s else 0.0
        return {
            "requests": done,
            "duration_s": round(self.duration_s, 3),
            "requests_per_s": round(per_s, 1),
            "rows_per_s": round(per_s * rows, 1),
            "latency_us": self._latency_us(),
            "errors": dict(self.errors),
            "dropped": self.dropped,
            "interrupted": self.is_interrupted,
        }

    def _latency_us(self) -> dict[str, float | None]:
        if not self.latencies_s:
            return dict.fromkeys((*PERCENTILES, "mean", "max"))
        us = np.frombuffer(self.latencies_s) * 1e6
        marks = (*np.percentile(us, list(PERCENTILES.values())), us.mean(), us.max())
        return {name: round(float(mark), 1) for name, mark in zip((*PERCENTILES, "mean", "max"), marks, strict=True)}


async def closed_loop(
    send: Send, concurrency: int, duration_s: float, *, tick: Tick | None = None, stop: asyncio.Event | None = None
) -> Outcome:
    """`concurrency` callers for `duration_s`; `tick` gets the share of time that has passed, `stop` ends it early."""
    outcome = Outcome()

    async def caller(end: float) -> None:
        while (start := time.perf_counter()) < end:
            if not await _timed(send, start, outcome):
                await asyncio.sleep(REFUSED_PAUSE_S)

    async def callers() -> None:
        end = time.perf_counter() + duration_s
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(caller(end))

    await _measured(callers(), outcome, duration_s, tick, stop)
    return outcome


async def open_loop(
    send: Send,
    rate: float,
    duration_s: float,
    *,
    tick: Tick | None = None,
    stop: asyncio.Event | None = None,
    max_in_flight: int = MAX_IN_FLIGHT,
    seed: int = 7,
) -> Outcome:
    """Poisson arrivals at `rate` a second for `duration_s`, then the wait for the last answers."""
    outcome = Outcome()
    in_flight: set[asyncio.Task[bool]] = set()
    is_over = False
    loop = asyncio.get_running_loop()

    async def requests() -> None:
        nonlocal is_over
        async with asyncio.TaskGroup() as group:

            def arrive(due: float) -> None:
                if is_over:
                    return
                if len(in_flight) >= max_in_flight:
                    outcome.dropped += 1
                    return
                task = group.create_task(_timed(send, due, outcome))
                in_flight.add(task)
                task.add_done_callback(in_flight.discard)

            def announce(due: float) -> None:
                loop.call_soon_threadsafe(arrive, due)

            try:
                await asyncio.to_thread(_arrivals, announce, rate, duration_s, seed, lambda: is_over)
            finally:
                is_over = True

    await _measured(requests(), outcome, duration_s, tick, stop)
    return outcome


def _arrivals(
    announce: Callable[[float], None], rate: float, duration_s: float, seed: int, is_over: Callable[[], bool]
) -> None:
    """Announce each arrival when it is due. A thread, because the loop's own timers are a millisecond coarse."""
    rng = np.random.default_rng(seed)
    due = time.perf_counter()
    end = due + duration_s
    while (due := due + float(rng.exponential(1.0 / rate))) < end:
        while (wait_s := due - time.perf_counter()) > 0 and not is_over():
            time.sleep(min(wait_s, TICK_S))
        if is_over():
            return
        announce(due)


async def _timed(send: Send, start: float, outcome: Outcome) -> bool:
    """One request, counted; whether it was answered."""
    try:
        await send()
    except InferdError as error:
        outcome.errors[type(error).__name__] += 1
        return False
    outcome.latencies_s.append(time.perf_counter() - start)
    return True


async def _measured(
    work: Coroutine[None, None, None],
    outcome: Outcome,
    duration_s: float,
    tick: Tick | None,
    stop: asyncio.Event | None,
) -> None:
    """Run `work` to its end or until `stop`; when it fails, its first error is raised and nothing is left running."""
    begin = time.perf_counter()
    running = asyncio.create_task(work)
    stopped = asyncio.create_task((stop or asyncio.Event()).wait())
    try:
        while not running.done() and not stopped.done():
            await asyncio.wait((running, stopped), timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
            if tick:
                tick(min((time.perf_counter() - begin) / duration_s, 1.0))
    finally:
        outcome.duration_s = time.perf_counter() - begin
        outcome.is_interrupted = not running.done()
        for task in (running, stopped):
            task.cancel()
        await asyncio.wait((running, stopped))
    if not running.cancelled() and (error := running.exception()):
        raise error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
