"""Who is behind the gateway: devices that are announced, trusted, and have proven it in a handshake with us.

What a device serves is asked when it comes and whenever its models digest changes; until it has answered once it is no
member, so announcements alone, however many, change nothing. A member stays one while it is announced: whether it is
well is for Envoy's health checks to see.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from inferd import calls
from inferd.address import Address
from inferd.channel import Channel, DeviceConnector
from inferd.errors import Forbidden, InferdError, Unauthenticated
from inferd.fleet.record import Device
from inferd.fleet.trust import DeviceTrust, TrustStore
from inferd.retry import Deadline
from inferd_agent.gateway.upstream import Member

log = logging.getLogger(__name__)

CONNECT_S, ANSWER_S = 2.0, 5.0
AGAIN_S = 5.0
_QUESTIONS = 32

Models = frozenset[str] | None
Ask = Callable[[Device, DeviceTrust], Awaitable[Models]]


@dataclass(slots=True)
class _Known:
    """What we have of one device. `asked`: for which digest and anchors; `anchors` are those it proved itself by."""

    asked: tuple[str, str] = ("", "")
    anchors: str = ""
    models: Models = None
    again_s: float = 0.0
    question: asyncio.Task[None] | None = None
    complaints: set[str] = field(default_factory=set)


class Roster:
    """Belongs to one loop. `changed` is called when a device has answered; `devices` tells who is announced."""

    def __init__(
        self,
        devices: Callable[[], tuple[Device, ...]],
        store: TrustStore,
        ask: Ask,
        changed: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._devices = devices
        self._store = store
        self._ask = ask
        self._changed = changed
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._slots = asyncio.Semaphore(_QUESTIONS)

    async def members(self) -> tuple[Member, ...]:
        """Those of now; asks, in the background, whoever has something new to say. Raises TLSError for a trust file
        that is damaged."""
        trusted = await asyncio.to_thread(self._store.read)
        found = []
        announced = {device.instance_id: device for device in self._devices()}
        for gone in self._known.keys() - announced.keys():
            self._forget(gone)
        for instance_id, device in announced.items():
            known = self._known.setdefault(instance_id, _Known())
            anchors = trusted.anchors(device)
            if not anchors:
                self._complain(known, f"{device.name} is not trusted, so it gets nothing: inferd trust '{device.name}'")
                continue
            self._look_after(known, device, anchors)
            if known.anchors == anchors:
                found.append(Member(device, anchors, known.models))
        return tuple(found)

    async def close(self) -> None:
        """End all questions."""
        questions = [known.question for known in self._known.values() if known.question is not None]
        for instance_id in tuple(self._known):
            self._forget(instance_id)
        await asyncio.gather(*questions, return_exceptions=True)

    def _forget(self, instance_id: str) -> None:
        known = self._known.pop(instance_id)
        if known.question is not None:
            known.question.cancel()

    def _look_after(self, known: _Known, device: Device, anchors: str) -> None:
        wanted = (device.models_digest, anchors)
        if known.asked != wanted and known.question is None and self._clock() >= known.again_s:
            known.question = asyncio.create_task(self._question(known, device, wanted))

    async def _question(self, known: _Known, device: Device, wanted: tuple[str, str]) -> None:
        try:
            trust = await asyncio.to_thread(self._store.trust_for, device)
            async with self._slots:
                known.models = await self._ask(device, trust)
        except InferdError as error:
            known.again_s = self._clock() + AGAIN_S
            self._complain(known, f"{device.name}: {error}")
        else:
            known.asked, known.anchors = wanted, wanted[1]
            known.complaints.clear()
            log.info("%s serves %s", device.name, _told(known.models))
        finally:
            known.question = None
        self._changed()

    def _complain(self, known: _Known, text: str) -> None:
        """Each complaint once, until the device is well again."""
        if text not in known.complaints and len(known.complaints) < 8:
            known.complaints.add(text)
            log.warning("%s", text)


def asking(token: str | None) -> Ask:
    """Ask a device for the names of its ready models; None where the token may not know, or there is none."""

    async def ask(device: Device, trust: DeviceTrust) -> Models:
        address = Address(device.urls[0], None, device.host, device.port, device.host)
        channel = Channel(
            address, trust, token, lambda: DeviceConnector(lambda: device.addresses, connect_s=CONNECT_S)
        )  # fmt: skip
        index = calls.index(ready=True)
        try:
            entries = index.read(await channel.exchange(index, Deadline(ANSWER_S)))
        except (Unauthenticated, Forbidden):
            return None
        finally:
            await channel.close()
        return frozenset(str(entry["name"]) for entry in entries if "name" in entry)

    return ask


def _told(models: Models) -> str:
    if models is None:
        return "what it likes: the gateway's token may not ask (scope read)"
    return ", ".join(sorted(models)[:20]) or "nothing yet"
