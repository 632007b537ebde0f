"""Waits with one deadline for all."""

from __future__ import annotations

import asyncio

import pytest

from inferd_agent.grpc.patience import Patience


async def test_a_wait_that_is_too_long_ends_in_a_timeout() -> None:
    """And the task goes on as if nothing had been cancelled."""
    patience = Patience(0.05)
    with pytest.raises(TimeoutError), patience:
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_a_short_wait_ends_as_it_would_without() -> None:
    """Also when another one, of another task, is cut off meanwhile."""
    now_s = 100.0
    patience = Patience(0.05, clock=lambda: now_s)

    async def wait_for_ever() -> None:
        with patience:
            await asyncio.Event().wait()

    other = asyncio.create_task(wait_for_ever())
    await asyncio.sleep(0)
    now_s += 1
    while not other.done():
        with patience:
            await asyncio.sleep(0.001)
    assert isinstance(other.exception(), TimeoutError)


async def test_a_cancellation_from_outside_stays_one() -> None:
    """Nobody is told of a timeout where there was none."""
    patience = Patience(60.0)

    async def wait_for_ever() -> None:
        with patience:
            await asyncio.Event().wait()

    task = asyncio.create_task(wait_for_ever())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_beside_a_timeout_counts() -> None:
    """Whoever cancelled the task waits for it to be cancelled."""
    patience = Patience(0.05)

    async def wait_for_ever() -> None:
        with patience:
            await asyncio.Event().wait()

    task = asyncio.create_task(wait_for_ever())
    while not task.cancelling():
        await asyncio.sleep(0)  # in the very turn of the loop in which its time was up
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_wait_goes_through() -> None:
    """Only cancellation is looked at."""
    with pytest.raises(ValueError, match="as it came"), Patience(60.0):
        raise ValueError("as it came")


async def test_nothing_runs_while_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """One timer serves all waits, and goes with the last of them."""
    loop = asyncio.get_running_loop()
    asked: list[float] = []
    call_later = loop.call_later
    monkeypatch.setattr(loop, "call_later", lambda delay, *given: asked.append(delay) or call_later(delay, *given))
    patience = Patience(0.02)
    for _ in range(100):
        with patience:
            pass
    assert len(asked) == 1
    await call_later_over(call_later)
    assert len(asked) == 1


async def call_later_over(call_later: object) -> None:
    """Until a timer set now, for longer than a look takes, has run."""
    over = asyncio.Event()
    assert callable(call_later)
    call_later(0.05, over.set)
    await over.wait()
