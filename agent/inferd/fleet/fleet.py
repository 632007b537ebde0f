"""A fleet called as one: devices as they are found, calls balanced over them, failures moved elsewhere.

Decides nothing: `pool` and `route` do. A keeper asks devices what they serve when that may have changed, and looks
after those that fail or fall silent. Belongs to one event loop; every task ends with `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from inferd.calls import Call
from inferd.errors import ConnectionFailed, InferdError, Unsupported, Untrusted
from inferd.fleet.line import Line
from inferd.fleet.pool import Lease, Member, Pool
from inferd.fleet.record import Device
from inferd.fleet.route import PAUSE_S, Route
from inferd.fleet.trust import TrustStore
from inferd.retry import Deadline

T = TypeVar("T")
MAX_VISITS = 16
TICK_S = 1.0

log = logging.getLogger(__name__)


class Source(Protocol):
    """Where devices come from: `browse.AsyncBrowser`, or a list."""

    async def start(self) -> None:
        """Begin to tell; OSError where that cannot be."""
        ...

    async def close(self) -> None:
        """Tell no more."""
        ...


OpenSource = Callable[[Callable[[Device | None, str], None]], Source]


class Fleet:
    """The devices that the source tells of, as far as `store` trusts them and they serve `model`.

    `wait_s`: how long a call waits while nobody can take it. `hedge_s`: after so long without an answer a call is sent
    to a second device too. `max_connections`: to each device.
    """

    def __init__(
        self,
        open_source: OpenSource,
        store: TrustStore,
        *,
        model: str | None,
        token: str | None,
        timeout_s: float,
        wait_s: float,
        hedge_s: float | None = None,
        max_connections: int = 16,
    ) -> None:
        self._store = store
        self._model = model
        self._token = token
        self._timeout_s = timeout_s
        self._wait_s = wait_s
        self._hedge_s = hedge_s
        self._max_connections = max_connections
        self._pool = Pool(model)
        self._lines: dict[Member, Line] = {}
        self._source = open_source(self._heard)
        self._visits = asyncio.Semaphore(MAX_VISITS)
        self._starting = asyncio.Lock()
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._is_closed = False

    async def start(self) -> None:
        """Begin to look for devices; idempotent. Raises ConnectionFailed where no multicast is to be had."""
        async with self._starting:
            if self._keeper is None:
                try:
                    await self._source.start()
                except OSError as error:
                    raise ConnectionFailed(f"cannot look for devices: {error}", is_unsent=True) from error
                self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Forget all devices; calls under way break, later ones are refused."""
        self._is_closed = True
        await self._source.close()
        tasks = [*self._tasks, *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for line in self._lines.values():
            await line.hang_up()
        self._tell()

    def devices(self) -> tuple[Device, ...]:
        """Those that may be called now, by name."""
        return tuple(sorted((each.device for each in self._pool.members if each.is_in), key=lambda each: each.name))

    async def run(self, call: Call[T], timeout_s: float | None) -> T:
        """One call by whichever devices it takes; raises NoDevice when there is none for `wait_s`."""
        if not call.is_repeatable:
            raise Unsupported(f"{call.method} {call.path} is for one device, not for a fleet: use Client(url) for it")
        if self._keeper is None:
            await self.start()
        deadline = Deadline(self._timeout_s if timeout_s is None else timeout_s)
        route = Route(self._pool, call, deadline, wait_s=self._wait_s)
        running: set[asyncio.Task[tuple[T] | None]] = set()
        try:
            while True:
                if not running:
                    running.add(self._begin(route, await self._next(route), call))
                hedge_s = self._hedge_s if len(running) == 1 else None
                done, running = await asyncio.wait(running, timeout=hedge_s, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if (answer := task.result()) is not None:
                        return answer[0]
                if not done and (other := route.hedge()) is not None:
                    running.add(self._begin(route, other, call))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _next(self, route: Route) -> Member:
        """Where the call goes, as soon as there is somebody."""
        while not self._is_closed:
            if (member := route.next()) is not None:
                return member
            self._wake.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_S):
                    await self._changed.wait()
        raise ConnectionFailed("this client is closed", is_unsent=True)

    def _begin(self, route: Route, member: Member, call: Call[T]) -> asyncio.Task[tuple[T] | None]:
        # The lease is taken before anything is awaited, so that the next call sees this one under way.
        return asyncio.create_task(self._attempt(route, self._pool.begin(member, call.path), call))

    async def _attempt(self, route: Route, lease: Lease, call: Call[T]) -> tuple[T] | None:
        """One device's answer; None when it failed and the call may go on elsewhere."""
        line = self._lines[lease.member]
        hang_ups = line.hang_ups
        try:
            answer = await line.call(call, Deadline(route.patience_s()))
        except InferdError as error:
            route.failed(lease, error, was_hung_up=line.hang_ups != hang_ups)
            self._wake.set()
            return None
        except BaseException:
            self._pool.abandoned(lease)
            raise
        finally:
            self._tidy()
        self._pool.answered(lease)
        return (answer,)

    def _heard(self, device: Device | None, name: str) -> None:
        """A device came, changed or, as None, left."""
        if device is None:
            self._pool.remove(name)
        else:
            member = self._pool.put(device)
            if member not in self._lines:
                self._lines[member] = Line(member, self._token, self._max_connections)
        self._tidy()
        self._wake.set()

    async def _keep(self) -> None:
        """Have devices visited when they are due."""
        while True:
            for member in self._pool.start_visits():
                self._spawn(self._visit(member, self._lines[member]))
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self._pool.next_visit_s(), TICK_S)):
                    await self._wake.wait()

    async def _visit(self, member: Member, line: Line) -> None:
        is_believed = False
        try:
            async with self._visits:
                trust = await asyncio.to_thread(self._store.trust_for, member.device)
                is_believed = True
                models = await line.visit(trust, self._model)
        except InferdError as error:
            if error.message != member.refusal:
                is_loud = is_believed and isinstance(error, Untrusted)
                log.log(logging.WARNING if is_loud else logging.INFO, "%s", error)
            self._pool.turned_away(member, error)
            if error.status is None:
                await line.hang_up()
        except Exception:
            log.exception("asking %s what it serves failed", member.device.name)
            self._pool.turned_away(member, ConnectionFailed("asking it failed, as the log tells"))
        else:
            self._pool.welcomed(member, models)
        self._tidy()
        self._tell()

    def _tell(self) -> None:
        """Wake all calls that wait now."""
        self._changed.set()
        self._changed.clear()

    def _tidy(self) -> None:
        """Close the lines of those that left, once their last call has ended."""
        for member in [each for each in self._lines if each not in self._pool and not each.in_flight]:
            self._spawn(self._lines.pop(member).hang_up())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
