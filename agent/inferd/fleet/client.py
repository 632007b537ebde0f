"""A fleet called as one, for threads: the asyncio fleet on a loop in a thread of its own.

The daemons are a LAN away, so a hop between threads costs little, and there is one fleet in the code instead of two.
Any number of threads may call. Make it after a fork, not before.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from inferd.calls import Call
from inferd.client import Api
from inferd.errors import ConnectionFailed
from inferd.fleet.fleet import Fleet
from inferd.fleet.record import Device

T = TypeVar("T")
# Calls under way end by themselves when the fleet closes; what does not is cancelled.
FAREWELL_S = 2.0


class FleetClient(Api):
    """Calls a fleet as if it were one daemon. `load`, `unload` and `measure` are for a single device's client."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="inferd-fleet", daemon=True)
        self._thread.start()
        self._lock = threading.Lock()
        self._is_closed = False
        try:
            self._wait_for(fleet.start())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Forget all devices, close all connections, end the thread; idempotent. Calls under way break."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def devices(self) -> tuple[Device, ...]:
        """Those that may be called now, by name."""
        return self._wait_for(self._devices())

    def _run(self, call: Call[T], timeout_s: float | None) -> T:
        return self._wait_for(self._fleet.run(call, timeout_s))

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._is_closed:
                work.close()
                raise ConnectionFailed("this client is closed", is_unsent=True)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C ends the call too, not only the wait for it
            raise

    async def _devices(self) -> tuple[Device, ...]:
        return self._fleet.devices()

    async def _close(self) -> None:
        await self._fleet.close()
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        if calls:
            _, calls = await asyncio.wait(calls, timeout=FAREWELL_S)
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
