"""Closed- and open-loop load against one model, through the SDK, with latencies free of coordinated omission.

Closed loop: `concurrency` callers, each sends its next request when the answer is there. Open loop: requests are due at
Poisson arrival times whatever the daemon does, and latency counts from the time a request was *due*, so that a stall
shows in every request it held up. Requests in flight are bounded; those that could not even be sent count as dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np

Send = Callable[[], Awaitable[object]]
MAX_IN_FLIGHT = 4096


@dataclass(slots=True)
class Outcome:
    """What a run saw; latencies in seconds."""

    duration_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    dropped: int = 0

    def summary(self, rows: int) -> dict[str, object]:
        """Figures for printing; percentiles are exact, over every request that was answered."""
        done = len(self.latencies_s)
        marks = np.percentile(self.latencies_s, [50, 90, 95, 99, 99.9]) * 1e6 if done else [float("nan")] * 5
        return {
            "requests": done,
            "duration_s": round(self.duration_s, 3),
            "requests_per_s": round(done / self.duration_s, 1) if self.duration_s else 0.0,
            "rows_per_s": round(done * rows / self.duration_s, 1) if self.duration_s else 0.0,
            "latency_us": {
                **{
                    name: round(float(v), 1)
                    for name, v in zip(("p50", "p90", "p95", "p99", "p99_9"), marks, strict=True)
                },
                "mean": round(float(np.mean(self.latencies_s)) * 1e6, 1) if done else None,
                "max": round(max(self.latencies_s) * 1e6, 1) if done else None,
            },
            "errors": dict(self.errors),
            "dropped": self.dropped,
        }


async def closed_loop(send: Send, concurrency: int, duration_s: float, tick: Callable[[float], None]) -> Outcome:
    """`concurrency` callers for `duration_s`; `tick` gets the share of time that has passed."""
    outcome = Outcome()
    begin = time.perf_counter()
    end = begin + duration_s

    async def caller() -> None:
        while (start := time.perf_counter()) < end:
            await _timed(send, start, outcome)

    await _watched([asyncio.create_task(caller()) for _ in range(concurrency)], begin, duration_s, tick)
    outcome.duration_s = time.perf_counter() - begin
    return outcome


async def open_loop(
    send: Send, rate: float, duration_s: float, tick: Callable[[float], None], *, seed: int = 7
) -> Outcome:
    """Poisson arrivals at `rate` a second for `duration_s`."""
    outcome = Outcome()
    rng = np.random.default_rng(seed)
    begin = time.perf_counter()
    in_flight: set[asyncio.Task[None]] = set()

    async def arrivals() -> None:
        due = begin
        while (due := due + rng.exponential(1.0 / rate)) < begin + duration_s:
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            if len(in_flight) >= MAX_IN_FLIGHT:
                outcome.dropped += 1
                continue
            task = asyncio.create_task(_timed(send, due, outcome))
            in_flight.add(task)
            task.add_done_callback(in_flight.discard)
            if wait <= -0.01:
                await asyncio.sleep(0)
        while in_flight:
            await asyncio.wait(set(in_flight))

    await _watched([asyncio.create_task(arrivals())], begin, duration_s, tick)
    outcome.duration_s = time.perf_counter() - begin
    return outcome


async def _timed(send: Send, start: float, outcome: Outcome) -> None:
    from inferd.errors import InferdError

    try:
        await send()
    except InferdError as error:
        outcome.errors[type(error).__name__] += 1
        return
    outcome.latencies_s.append(time.perf_counter() - start)


async def _watched(
    tasks: list[asyncio.Task[None]], begin: float, duration_s: float, tick: Callable[[float], None]
) -> None:
    """Wait for all tasks, telling `tick` how far the time is; nothing is left running when one of them fails."""
    waiting = set(tasks)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=0.1, return_when=asyncio.FIRST_EXCEPTION)
            tick(min((time.perf_counter() - begin) / duration_s, 1.0))
            for task in done:
                task.result()
    finally:
        for task in waiting:
            task.cancel()
