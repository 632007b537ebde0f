"""Announces the daemon as `_inferd._tcp`, and keeps what it announces true.

One task looks every second at the facts and every few at the interfaces; what changed is told, but not more often than
the network deserves. A name that somebody else has is given up for another one; of two that took the same, the one with
the smaller host name keeps it, so that both come to the same end. Trust never hangs on a name.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from inferd.fleet.interfaces import Interface, find_interfaces, multicast_choices, open_zeroconf
from inferd.fleet.record import MAX_NAME_BYTES, SERVICE, SUBTYPE, Device, printable_name, to_txt
from inferd_agent.discovery.facts import Facts
from inferd_agent.discovery.reach import port_of, reached
from inferd_agent.sockets import Bound

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
LOAD_EVERY_S = 5.0  # a change of the load alone is told at most so often
REPEAT_EVERY_S = 60.0  # told without a change, for those that a partition kept from hearing
_FOLLOW_LOOKS = 3
_TTL_S = 120  # a device that vanished without a goodbye is forgotten after this
_GOODBYE_S = 2.0
_MAX_NAME_BYTES = MAX_NAME_BYTES - 6  # a number may have to follow


def is_due(old: Device, new: Device, since_s: float) -> bool:
    """Whether to tell `new` now, `since_s` after `old` was told."""
    if old == new:
        return since_s >= REPEAT_EVERY_S
    return since_s >= (LOAD_EVERY_S if is_load_alone(old, new) else LOOK_EVERY_S)


def is_load_alone(old: Device, new: Device) -> bool:
    """Whether nothing but the load has changed, if that."""
    return msgspec.structs.replace(old, load=new.load) == new


class Advertiser:
    """One daemon's announcement. `facts` is asked on the loop and must not block."""

    def __init__(
        self,
        bound: Bound,
        facts: Callable[[], Facts],
        *,
        name: str,
        instance_id: str,
        interfaces: Sequence[str] = (),
    ) -> None:
        self._bound = bound
        self._facts = facts
        self._wish = self._name = printable_name(name, _MAX_NAME_BYTES)
        self._instance_id = instance_id
        self._patterns = tuple(interfaces)
        self._interfaces: tuple[Interface, ...] = ()
        self._zeroconf: AsyncZeroconf | None = None
        self._infos: tuple[AsyncServiceInfo, ...] = ()
        self._told: Device | None = None
        self._told_s = 0.0
        self._is_fresh = False
        self._task: asyncio.Task[None] | None = None

    @property
    def device(self) -> Device | None:
        """What is announced now."""
        return self._told

    def start(self) -> None:
        """Announce from now on. Where that cannot be, the log says why; the daemon serves all the same."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(_tell_failure)

    async def close(self) -> None:
        """Tell that the device drains, say goodbye, and stop; idempotent. Takes at most 2 s."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._zeroconf is None:
            return
        if self._told is not None:
            self._say(msgspec.structs.replace(self._told, state="draining"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._zeroconf.async_unregister_all_services()
        await self._zeroconf.async_close()
        self._zeroconf = self._told = None

    async def _run(self) -> None:
        try:
            self._interfaces = await asyncio.to_thread(find_interfaces, self._patterns)
            self._zeroconf = await open_zeroconf(self._interfaces)
        except OSError as error:
            log.error("not announced on the LAN, as there is no network for it: %s; see lan.conf for systemd", error)
            return
        from zeroconf import Error

        for looks in itertools.count(1):
            try:
                if looks % _FOLLOW_LOOKS == 0:
                    await self._follow_interfaces()
                await self._look()
            except (OSError, Error) as error:
                log.warning("announcing failed, tried again: %s", error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        """Tell what changed, if it is time to."""
        device = self._device()
        if not device.addresses:
            return
        now_s = asyncio.get_running_loop().time()
        if self._told is None:
            await self._begin(device)
        elif self._has_rival(self._told):
            await self._give_way(device)
        elif is_due(self._told, device, now_s - self._told_s):
            self._is_fresh = not is_load_alone(self._told, device)
            self._say(device)
        elif self._is_fresh:  # told twice: packets get lost, and others drop what is old only if it is a second old
            self._is_fresh = False
            self._say(self._told)

    def _device(self) -> Device:
        facts = self._facts()
        return Device(
            name=self._name,
            instance_id=self._instance_id,
            host=f"inferd-{self._instance_id}.local",
            addresses=reached(self._bound, self._interfaces),
            port=port_of(self._bound),
            version=facts.version,
            models_digest=facts.models_digest,
            load=facts.load,
            state=facts.state,
            fingerprint=facts.fingerprint,
        )

    async def _begin(self, device: Device) -> None:
        """Look whether the name is free, take another one if not, and announce."""
        assert self._zeroconf is not None
        info = _info(SERVICE, device)
        # The announcements go on in the background; the records are there from now on.
        await self._zeroconf.async_register_service(info, allow_name_change=True)
        self._name = info.name.removesuffix(f".{SERVICE}")
        if self._name != device.name:
            log.warning("the name %r is taken on this network; announced as %r", device.name, self._name)
        device = msgspec.structs.replace(device, name=self._name)
        general = _info(SUBTYPE, device)
        await self._zeroconf.async_register_service(general, cooperating_responders=True)
        self._infos = (info, general)
        self._note(device)
        log.info("announced as %r on %s", self._name, ", ".join(each.name for each in self._interfaces))

    def _say(self, device: Device) -> None:
        """Replace the records and send them once."""
        assert self._zeroconf is not None
        zeroconf = self._zeroconf.zeroconf
        self._infos = (_info(SERVICE, device), _info(SUBTYPE, device))
        for info in self._infos:
            zeroconf.registry.async_update(info)
        zeroconf.async_send(zeroconf.generate_service_broadcast(self._infos[0], None))
        self._note(device)

    def _note(self, device: Device) -> None:
        self._told, self._told_s = device, asyncio.get_running_loop().time()

    def _has_rival(self, told: Device) -> bool:
        """Whether another device announces our name and has the better right; if the worse, ours is told again."""
        assert self._zeroconf is not None
        own = f"{told.host}."
        records = self._zeroconf.zeroconf.cache.entries_with_name(f"{self._name}.{SERVICE}")
        servers = {str(getattr(each, "server", own)).lower() for each in records} - {own}  # only SRV records have one
        if servers and own < min(servers):
            self._say(told)
        return bool(servers) and own > min(servers)

    async def _give_way(self, device: Device) -> None:
        """Leave the name to the other device without saying goodbye to it, and take another."""
        assert self._zeroconf is not None
        self._zeroconf.zeroconf.registry.async_remove(list(self._infos))
        await self._begin(msgspec.structs.replace(device, name=self._wish))

    async def _follow_interfaces(self) -> None:
        found = await asyncio.to_thread(find_interfaces, self._patterns)
        if found != self._interfaces:
            assert self._zeroconf is not None
            self._interfaces = found
            log.info("interfaces changed: %s", ", ".join(each.name for each in found) or "none")
            await self._zeroconf.async_update_interfaces(interfaces=multicast_choices(found))


def _tell_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("announcing ended", exc_info=error)


def _info(service: str, device: Device) -> AsyncServiceInfo:
    from zeroconf.asyncio import AsyncServiceInfo

    info = AsyncServiceInfo(
        service,
        f"{device.name}.{SERVICE}",
        port=device.port,
        properties=to_txt(device),
        server=f"{device.host}.",
        parsed_addresses=[each.partition("%")[0] for each in device.addresses],
        host_ttl=_TTL_S,
        other_ttl=_TTL_S,
    )
    if service != SERVICE:
        info.key = f"{service}/{info.key}"  # zeroconf keeps one service a name; this is a second pointer to the same
    return info
