"""Load and its figures: what counts, from when, and that nothing is hidden or left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from inferd.errors import NotReady, Overloaded
from inferd_agent.cli import loadtest
from inferd_agent.cli.loadtest import Outcome, closed_loop, open_loop

STALL_S = 0.15


async def at_once() -> None:
    """A daemon that needs no time."""
    await asyncio.sleep(0)


class Counting:
    """A daemon that counts who is under way."""

    def __init__(self, serve: Callable[[], Awaitable[object]] = at_once) -> None:
        self._serve = serve
        self.under_way = 0
        self.most = 0
        self.calls = 0

    async def __call__(self) -> None:
        self.under_way += 1
        self.calls += 1
        self.most = max(self.most, self.under_way)
        try:
            await self._serve()
        finally:
            self.under_way -= 1


def others() -> set[asyncio.Task[object]]:
    """Tasks that run besides the test."""
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def test_open_loop_shows_a_stall_in_every_request_it_held_up() -> None:
    """A daemon that stands still for 150 ms: requests that came due meanwhile have waited since then."""
    until = 0.0

    async def stalled() -> None:
        nonlocal until
        until = until or time.perf_counter() + STALL_S
        await asyncio.sleep(max(0.0, until - time.perf_counter()))

    outcome = await open_loop(stalled, rate=400, duration_s=2 * STALL_S)
    latencies_s = np.frombuffer(outcome.latencies_s)
    assert 80 < len(latencies_s) < 170
    assert (latencies_s > STALL_S / 3).sum() > len(latencies_s) * 0.2
    assert latencies_s.max() > STALL_S * 0.99


async def test_open_loop_counts_from_when_a_request_was_due() -> None:
    """A stall on this side, which keeps requests from being sent, is in their latency: no coordinated omission."""
    has_stalled = False

    async def send() -> None:
        nonlocal has_stalled
        if not has_stalled:
            has_stalled = True
            until = time.perf_counter() + STALL_S
            while time.perf_counter() < until:
                pass  # the loop itself stands still

    outcome = await open_loop(send, rate=400, duration_s=2 * STALL_S)
    latencies_s = np.frombuffer(outcome.latencies_s)
    assert (latencies_s > STALL_S / 3).sum() > len(latencies_s) * 0.2


async def test_open_loop_keeps_its_rate_and_is_random() -> None:
    """Arrivals are Poisson: as many as asked for, and never at even distances."""
    sent: list[float] = []

    async def send() -> None:
        sent.append(time.perf_counter())

    outcome = await open_loop(send, rate=1000, duration_s=0.25)
    assert len(sent) == len(outcome.latencies_s)
    assert 180 < len(sent) < 320
    assert np.std(np.diff(sent)) > 0.5 * np.mean(np.diff(sent))


async def test_open_loop_is_bounded_and_counts_what_it_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound requests are dropped and counted, not queued without end."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def all_at_once(announce: Callable[[float], None], *_: object) -> None:
        for _ in range(50):
            announce(time.perf_counter())
        loop.call_soon_threadsafe(loop.call_soon, over.set)  # when those that were let in have begun

    monkeypatch.setattr(loadtest, "_arrivals", all_at_once)
    served = Counting(over.wait)
    outcome = await open_loop(served, rate=500, duration_s=0.1, max_in_flight=5)
    assert served.most == served.calls == 5
    assert outcome.dropped == 45
    assert len(outcome.latencies_s) == 5


async def test_closed_loop_has_so_many_callers() -> None:
    """Never more under way than asked for, and as many as asked for, who come back after each answer."""
    stop = asyncio.Event()
    served = Counting(lambda: asyncio.sleep(0.002))

    async def send() -> None:
        await served()
        if served.calls > 70:
            stop.set()

    outcome = await closed_loop(send, 7, 30, stop=stop)
    assert served.most == 7
    assert len(outcome.latencies_s) > 60
    assert not others()


async def test_errors_are_counted_by_kind_and_not_in_the_latency() -> None:
    """Refusals are no fast answers; a refused caller does not come back at once."""
    errors = [Overloaded("full"), NotReady("loading"), Overloaded("full")]
    stop = asyncio.Event()

    async def send() -> None:
        if errors:
            raise errors.pop()
        stop.set()
        await asyncio.sleep(0)

    outcome = await closed_loop(send, 1, 30, stop=stop)
    assert outcome.errors == {"Overloaded": 2, "NotReady": 1}
    always = Counting(refuse)
    outcome = await closed_loop(always, 1, 0.1)
    assert (len(outcome.latencies_s), outcome.errors["Overloaded"]) == (0, always.calls)
    assert always.calls <= 11


async def refuse() -> None:
    raise Overloaded("full")


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_failing_task_ends_all(is_open: bool) -> None:
    """An error that is not the daemon's ends the run as itself, and no task is left."""
    stuck = asyncio.Event()
    calls = 0

    async def send() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ZeroDivisionError("a bug")
        await stuck.wait()

    with pytest.raises(ZeroDivisionError, match="a bug"):
        await (open_loop(send, 1000, 30) if is_open else closed_loop(send, 3, 30))
    assert not others()


@pytest.mark.parametrize("is_open", [True, False])
async def test_stop_ends_early_with_what_there_is(is_open: bool) -> None:
    """Ctrl-C: what was measured stays, what was under way is cancelled, and the outcome says so."""
    stop = asyncio.Event()
    served = Counting()
    answered = 0

    async def send() -> None:
        nonlocal answered
        await served()
        if answered == 20:
            stop.set()
            await asyncio.Event().wait()
        answered += 1

    outcome = await (open_loop(send, 2000, 30, stop=stop) if is_open else closed_loop(send, 2, 30, stop=stop))
    assert outcome.is_interrupted
    assert len(outcome.latencies_s) == 20
    assert outcome.duration_s < 30
    assert not others()


async def test_a_cancelled_run_leaves_nothing() -> None:
    """Whoever gives up on a run gets their tasks and threads back."""
    run = asyncio.create_task(open_loop(asyncio.Event().wait, 1000, 30))
    await asyncio.sleep(0.02)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not others()


async def test_progress_reaches_the_end() -> None:
    """The share of time only grows, up to one, and all of the time is used."""
    shares: list[float] = []
    outcome = await closed_loop(at_once, 1, 0.15, tick=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert outcome.duration_s >= 0.15


def test_percentiles_are_exact() -> None:
    """Of 1 to 1000 ms the median is 500.5 ms, and so on; rates count rows."""
    outcome = Outcome(duration_s=2.0)
    outcome.latencies_s.extend(ms / 1000 for ms in range(1, 1001))
    summary = outcome.summary(rows=3)
    latency = summary["latency_us"]
    assert isinstance(latency, dict)
    assert latency["p50"] == 500_500.0
    assert latency["p99"] == pytest.approx(990_010, abs=1)
    assert latency["max"] == 1_000_000.0
    assert (summary["requests_per_s"], summary["rows_per_s"]) == (500.0, 1500.0)


def test_a_run_without_answers_has_no_percentiles() -> None:
    """Null, neither zero nor NaN, under the same keys."""
    empty = Outcome(duration_s=1.0).summary(1)["latency_us"]
    full = Outcome(1.0)
    full.latencies_s.append(1.0)
    assert isinstance(empty, dict)
    assert set(empty.values()) == {None}
    assert list(empty) == list(full.summary(1)["latency_us"])  # type: ignore[call-overload]


def test_a_request_costs_eight_bytes() -> None:
    """A long run does not fill the memory."""
    assert Outcome().latencies_s.itemsize == 8
