"""Inline runs wait for requests on their way in, and not for long."""

from __future__ import annotations

import asyncio

from inferd_agent.arrivals import Arrivals


async def test_nothing_on_its_way_is_not_waited_for() -> None:
    """The run is there and then."""
    seen: list[str] = []
    arrivals = Arrivals(asyncio.get_running_loop())
    arrivals.end(arrivals.begin())
    arrivals.after(lambda: seen.append("run"))
    assert seen == ["run"]


async def test_a_run_comes_after_what_was_on_its_way() -> None:
    """After all of it, and after what is done with the last of it at once; also what comes meanwhile."""
    seen: list[str] = []
    arrivals = Arrivals(asyncio.get_running_loop())
    first, second = arrivals.begin(), arrivals.begin()
    over = asyncio.Event()
    arrivals.after(lambda: seen.append("run"))
    arrivals.after(over.set)
    arrivals.end(first)
    seen.append("first")
    assert seen == ["first"]
    arrivals.end(second)
    seen.append("second")
    await over.wait()
    assert seen == ["first", "second", "run"]


async def test_what_does_not_come_is_waited_for_once() -> None:
    """Later runs go ahead, its late coming disturbs nothing, and others are waited for as ever."""
    seen: list[str] = []
    arrivals = Arrivals(asyncio.get_running_loop())
    late = arrivals.begin()
    over = asyncio.Event()
    arrivals.after(over.set)
    await over.wait()
    arrivals.after(lambda: seen.append("ahead"))
    assert seen == ["ahead"]
    other = arrivals.begin()
    arrivals.end(late)
    arrivals.after(lambda: seen.append("waited"))
    assert seen == ["ahead"]
    arrivals.end(other)
    over.clear()
    asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, over.set)
    await over.wait()
    assert seen == ["ahead", "waited"]


async def test_a_request_that_comes_too_late_for_a_look_is_waited_for() -> None:
    """One begins between the end of the last and the run."""
    seen: list[str] = []
    arrivals = Arrivals(asyncio.get_running_loop())
    first = arrivals.begin()
    over = asyncio.Event()
    arrivals.after(lambda: seen.append("run"))
    arrivals.after(over.set)
    arrivals.end(first)
    second = arrivals.begin()
    await asyncio.sleep(0)
    assert seen == []
    arrivals.end(second)
    await over.wait()
    assert seen == ["run"]
