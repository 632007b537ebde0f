"""gRPC's asyncio server, with the taking of calls done here.

grpcio's own loop ends, and its listener with it, at the first path that is no UTF-8, and it waits for ever for a caller
that does not take its answer. Both would be anybody's to provoke. For that this room reaches into grpcio's inner parts,
and pyproject.toml names the versions that have them. A call is counted until its answer is gone; what strangers may
call has places of its own, so that they take none from known callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from grpc._cython import cygrpc

# After a failure to take a call, which should not be, it is tried again.
_AGAIN_S = 0.05
# What strangers may call has this part of the places of the others, and at least one.
_STRANGERS_SHARE = 8
# So many calls of a busy path are asked for ahead, of others one: those that come together are seen together, and share
# a batch.
_ASKED_AHEAD = 16


class _Gate:
    """`most` calls at once, of which so many are `taken`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0


@dataclass(slots=True)
class _Call:
    """A call under way: grpcio's state of it, the task that answers it, and when it was seen waiting for its caller."""

    state: Any
    gate: _Gate | None
    work: asyncio.Task[None] | None = None
    unsent_since: float | None = None


class Server(cygrpc.AioServer):  # type: ignore[misc]  # gRPC has no types
    """Made on the event loop. `handlers` by path, those in `open_paths` for strangers, many of those in
    `busy_paths` at a time; `most` calls at once; a caller that takes nothing of its answer's end for `patience_s` is
    dropped."""

    def __init__(
        self,
        options: Sequence[tuple[str, int]],
        handlers: Mapping[str, Any],
        *,
        open_paths: Collection[str],
        busy_paths: Collection[str] = (),
        most: int,
        patience_s: float,
    ) -> None:
        self._events = asyncio.get_running_loop()
        super().__init__(self._events, None, (), None, tuple(options), None)
        self.add_registered_method_handlers(handlers)
        self._handlers = handlers
        self._busy_paths = busy_paths
        known, strangers = _Gate(most), _Gate(max(most // _STRANGERS_SHARE, 1))
        self._gates = {path: strangers if path in open_paths else known for path in handlers}
        self._patience_s = patience_s
        self._calls: dict[asyncio.Task[None], _Call] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Take calls from now on."""
        await super().start()
        self._sweep()

    async def shutdown(self, grace: float) -> None:
        """Take no more calls; those under way have `grace` seconds."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await super().shutdown(grace)

    # grpcio's loop asks for the next call of each path, and for those of all other paths; these never give it one.

    async def _request_registered_call(self, method: bytes) -> None:
        take, path = partial(super()._request_registered_call, method), method.decode()
        await asyncio.gather(*[self._take(path, take) for _ in range(_ASKED_AHEAD if path in self._busy_paths else 1)])

    async def _request_call(self) -> None:
        await self._take("", super()._request_call)  # nothing is served there, so the real path does not matter

    async def _take(self, path: str, take: Callable[[], Awaitable[Any]]) -> None:
        while True:
            self._begin(path, await self._next(take))

    async def _next(self, take: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await take()
            except cygrpc._RequestCallError:
                if not self.is_running():
                    raise
            await asyncio.sleep(_AGAIN_S)

    def resolve_handler(self, details: Any) -> Any:
        """grpcio: what answers this call; None is UNIMPLEMENTED."""
        return self._handlers.get(details.method)

    def _begin(self, path: str, state: Any) -> None:
        gate = self._gates.get(path)
        is_full = gate is not None and gate.taken >= gate.most
        answering = cygrpc._handle_rpc(path, self, (), state, self._events, is_full)
        call = _Call(state, None if is_full else gate)
        if call.gate is not None:
            call.gate.taken += 1
        task = self._events.create_task(self._attend(call, answering, path))
        self._calls[task] = call

    async def _attend(self, call: _Call, answering: Coroutine[Any, Any, None], path: str) -> None:
        """One call, until it ended at both sides."""
        state = call.state
        call.work = work = self._events.create_task(cygrpc._handle_exceptions(state, answering, self._events, path))
        try:
            await cygrpc._handle_cancellation_from_core(work, state, self._events)
            await work
        finally:
            if call.gate is not None:
                call.gate.taken -= 1
            del self._calls[cast("asyncio.Task[None]", asyncio.current_task())]

    def _sweep(self) -> None:
        """Drop the calls whose callers do not take what ends them. Nobody refers to them then, which resets them."""
        now = self._events.time()
        for task, call in tuple(self._calls.items()):
            if not cygrpc._ServicerContext(call.state, None, None, self._events).done():
                continue
            if call.unsent_since is None:
                call.unsent_since = now
            elif now - call.unsent_since > self._patience_s and call.work is not None:
                call.work.cancel()
                task.cancel()
        self._sweeper = self._events.call_later(self._patience_s / 4, self._sweep)
