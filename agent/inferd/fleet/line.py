"""The line to one device of a fleet: the connections for calls, those for asking after it, and hanging up on the dead.

Who answers is verified in every TLS handshake against what is trusted now; nothing is sent to anybody else.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from inferd import calls
from inferd.address import Address
from inferd.calls import Call
from inferd.channel import Channel, DeviceConnector
from inferd.errors import ConnectionFailed, Forbidden, InferdError, NotFound
from inferd.fleet.pool import Member, Models
from inferd.fleet.trust import DeviceTrust
from inferd.retry import Attempts, Deadline

T = TypeVar("T")
CONNECT_S = 2.0
VISIT_S = 3.0


class Line:
    """Belongs to the loop of the fleet. At most `max_connections` calls at once, others wait within their deadline."""

    def __init__(self, member: Member, token: str | None, max_connections: int) -> None:
        self._member = member
        self._token = token
        self._slots = asyncio.Semaphore(max_connections)
        self._trust: DeviceTrust | None = None
        self._channel: Channel | None = None
        self.hang_ups = 0

    async def call(self, call: Call[T], deadline: Deadline) -> T:
        """One call; repeated here only where a connection kept from before turned out closed."""
        attempts = Attempts(deadline, is_repeatable=call.is_repeatable, retries=0, wait_s=0.0)
        hang_ups = self.hang_ups
        try:
            async with asyncio.timeout(deadline.left_s()):
                await self._slots.acquire()
        except TimeoutError:
            raise deadline.exceeded() from None
        try:
            while True:
                if self._channel is None or hang_ups != self.hang_ups:
                    raise ConnectionFailed(f"{self._member.device.name} was given up meanwhile", is_unsent=True)
                try:
                    return call.read(await self._channel.exchange(call, deadline))
                except InferdError as error:
                    if hang_ups != self.hang_ups:
                        raise
                    attempts.pause_s(error)
        finally:
            self._slots.release()

    async def visit(self, trust: DeviceTrust, model: str | None) -> Models | None:
        """Ask what it serves, over a connection of its own, so that busy ones keep nobody waiting.

        None: not known, as the token may infer but not read. Raises Untrusted before anything is sent.
        """
        deadline = Deadline(VISIT_S)
        channel = self._open(trust)
        try:
            models = await self._ask(channel, model, deadline)
        finally:
            await channel.close()
        if trust is not self._trust:  # what is trusted has changed, and connections of the old trust end with it
            await self.hang_up()
            self._trust, self._channel = trust, self._open(trust)
        return models

    async def hang_up(self) -> None:
        """Break off all calls: the device is dead, not trusted any more, or gone."""
        self.hang_ups += 1
        if self._channel is not None:
            await self._channel.close()

    async def _ask(self, channel: Channel, model: str | None, deadline: Deadline) -> Models | None:
        try:
            index = calls.index(ready=True)
            return frozenset(
                (str(entry.get("name")), str(entry.get("version")))
                for entry in index.read(await channel.exchange(index, deadline))
            )
        except Forbidden:
            if model is None:
                return None
        ready = calls.is_ready(model, None)
        try:
            is_ready = ready.read(await channel.exchange(ready, deadline))
        except (Forbidden, NotFound):
            is_ready = False
        return None if is_ready else frozenset()

    def _open(self, trust: DeviceTrust) -> Channel:
        device = self._member.device
        # The host is for the Host header; where to connect, the connector knows.
        address = Address(device.urls[0] if device.urls else device.name, None, device.host, device.port, device.host)
        return Channel(address, trust, self._token, self._connector)

    def _connector(self) -> DeviceConnector:
        return DeviceConnector(lambda: self._member.device.addresses, connect_s=CONNECT_S)
