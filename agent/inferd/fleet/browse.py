"""Devices as they come and go on the LAN, for asyncio.

What others send is bounded here: so many devices, so many look-ups at once, each within its time. zeroconf is imported
when a browser starts, not before. Interfaces that come, go or change their addresses are followed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from inferd.fleet.interfaces import Interface, find_interfaces, multicast_choices, nearest_first, open_zeroconf
from inferd.fleet.record import SERVICE, Device, from_txt

if TYPE_CHECKING:
    from zeroconf import ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

OnChange = Callable[[Device | None, str], None]
MAX_DEVICES = 1024
FOLLOW_EVERY_S = 3.0
_LOOK_UPS = 32
_LOOK_UP_MS = 3000
# Addresses that a device gave up leave zeroconf's cache a second after the second telling; nobody tells their end.
_SETTLED_S = 3.0

log = logging.getLogger(__name__)


class AsyncBrowser:
    """Finds devices as long as it is open. `on_change(device, name)` is told on the loop; device None: it is gone.

    `interfaces`: names with `*`, all of the LAN's without. Belongs to the loop on which it was started; only `devices`
    is for any thread.
    """

    def __init__(self, *, interfaces: Sequence[str] = (), on_change: OnChange | None = None) -> None:
        self._patterns = tuple(interfaces)
        self._on_change = on_change
        self._devices: dict[str, Device] = {}
        self._look_ups: dict[str, asyncio.Task[None]] = {}
        self._settling: dict[str, asyncio.TimerHandle] = {}
        self._slots = asyncio.Semaphore(_LOOK_UPS)
        self._interfaces: tuple[Interface, ...] = ()
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._follower: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to look; OSError where no multicast is to be had."""
        self._interfaces = await asyncio.to_thread(find_interfaces, self._patterns)
        self._zeroconf = await open_zeroconf(self._interfaces)
        from zeroconf.asyncio import AsyncServiceBrowser

        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._heard])
        self._follower = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop looking; idempotent."""
        if self._browser is not None:
            await self._browser.async_cancel()
        tasks = [*self._look_ups.values(), *([self._follower] if self._follower else [])]
        for task in tasks:
            task.cancel()
        for timer in self._settling.values():
            timer.cancel()
        self._settling.clear()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
        self._browser = self._zeroconf = self._follower = None

    def devices(self) -> tuple[Device, ...]:
        """Those known now, by name. For any thread."""
        return tuple(sorted(self._devices.copy().values(), key=lambda device: device.name))

    def _heard(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """Called by zeroconf, with these keywords."""
        from zeroconf import ServiceStateChange

        self._forget(name)
        if state_change is ServiceStateChange.Removed:
            self._set(name, None)
        elif len(self._devices.keys() | self._look_ups.keys() | {name}) <= MAX_DEVICES:
            self._begin(zeroconf, name)
            later = asyncio.get_running_loop().call_later(_SETTLED_S, self._begin, zeroconf, name)
            self._settling[name] = later

    def _forget(self, name: str) -> None:
        """End what is under way for a device: there is news of it."""
        if task := self._look_ups.pop(name, None):
            task.cancel()
        if timer := self._settling.pop(name, None):
            timer.cancel()

    def _begin(self, zeroconf: Zeroconf, name: str) -> None:
        self._settling.pop(name, None)
        if name not in self._look_ups:
            task = asyncio.create_task(self._look_up(zeroconf, name))
            self._look_ups[name] = task
            task.add_done_callback(lambda done: self._looked_up(name, done))

    def _looked_up(self, name: str, task: asyncio.Task[None]) -> None:
        if self._look_ups.get(name) is task:
            del self._look_ups[name]
        if not task.cancelled() and (error := task.exception()):
            log.warning("looking up a device failed: %s", error)

    async def _look_up(self, zeroconf: Zeroconf, name: str) -> None:
        """Ask for what is missing of a device and take it over."""
        from zeroconf import IPVersion
        from zeroconf.asyncio import AsyncServiceInfo

        async with self._slots:
            info = AsyncServiceInfo(SERVICE, name)
            if not await info.async_request(zeroconf, _LOOK_UP_MS):
                return
        addresses = info.parsed_scoped_addresses(IPVersion.All)
        device = from_txt(name.removesuffix(f".{SERVICE}"), info.server or "", addresses, info.port, info.properties)
        if device is not None:
            near = nearest_first(device.addresses, self._interfaces)
            device = msgspec.structs.replace(device, addresses=near)
        self._set(name, device)

    def _set(self, name: str, device: Device | None) -> None:
        before = self._devices.get(name)
        if device == before:
            return
        if device is None:
            del self._devices[name]
        else:
            self._devices[name] = device
        if self._on_change is not None:
            told = device or before
            assert told is not None
            self._on_change(device, told.name)

    async def _follow(self) -> None:
        """Move to other interfaces when they change."""
        while True:
            await asyncio.sleep(FOLLOW_EVERY_S)
            found = await asyncio.to_thread(find_interfaces, self._patterns)
            if found == self._interfaces or self._zeroconf is None:
                continue
            self._interfaces = found
            try:
                await self._zeroconf.async_update_interfaces(interfaces=multicast_choices(found))
            except OSError as error:  # it may be gone again; the next change is followed
                log.warning("cannot look on %s: %s", ", ".join(each.name for each in found), error)
