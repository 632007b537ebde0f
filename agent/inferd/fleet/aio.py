"""The fleet on this LAN, and its client for asyncio."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self, TypeVar

from inferd.address import find_token
from inferd.aio import AsyncApi
from inferd.calls import Call
from inferd.fleet.browse import AsyncBrowser
from inferd.fleet.fleet import Fleet
from inferd.fleet.record import Device
from inferd.fleet.trust import TrustStore

T = TypeVar("T")


def find_fleet(
    model: str | None,
    *,
    token: str | None,
    trust: str | os.PathLike[str] | None,
    interfaces: Sequence[str],
    timeout_s: float,
    wait_s: float,
    hedge_s: float | None,
    max_connections: int,
) -> Fleet:
    """The fleet on this LAN, as `inferd.Client.discover` has it."""
    return Fleet(
        lambda on_change: AsyncBrowser(interfaces=interfaces, on_change=on_change),
        TrustStore(Path(trust) if trust else None),
        model=model,
        token=find_token(token),
        timeout_s=timeout_s,
        wait_s=wait_s,
        hedge_s=hedge_s,
        max_connections=max_connections,
    )


class AsyncFleetClient(AsyncApi):
    """Calls a fleet as if it were one daemon. `load`, `unload` and `measure` are for a single device's client."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def close(self) -> None:
        """Forget all devices and close all connections."""
        await self._fleet.close()

    async def __aenter__(self) -> Self:
        await self._fleet.start()
        return self

    def devices(self) -> tuple[Device, ...]:
        """Those that may be called now, by name."""
        return self._fleet.devices()

    async def _run(self, call: Call[T], timeout_s: float | None) -> T:
        return await self._fleet.run(call, timeout_s)
