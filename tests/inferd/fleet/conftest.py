"""A fleet of small servers on loopback, each a device with a certificate, and clients that are told of them."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pytest
from aiohttp import web

from inferd.fleet.aio import AsyncFleetClient
from inferd.fleet.client import FleetClient
from inferd.fleet.fleet import Fleet
from inferd.fleet.record import Device
from inferd.fleet.trust import Authority, Trusted, TrustStore
from tests.inferd.client.server import TOKEN, Server, make_certificates, server_context, serving, tcp_socket

OnChange = Callable[[Device | None, str], None]
KINDS = ("sync", "async")


class Site(Server):
    """One device: a server that can be stopped, started again at its port, and made to say nothing."""

    def __init__(self, name: str, leaf: Path) -> None:
        super().__init__()
        self.name = name
        self.may_speak = threading.Event()
        self.may_speak.set()
        self.hold.set()
        self.knocks = 0
        self.index: list[dict[str, Any]] | None = [{"name": "echo", "version": "3", "state": "READY"}]
        self._leaf = leaf
        self._running = ExitStack()
        self._place = tcp_socket()
        self._port: int = self._place.getsockname()[1]

    def start(self) -> None:
        """Listen, at the same port as before, which nobody else gets meanwhile."""
        sock = tcp_socket(port=self._port)
        self._running.enter_context(serving(self, [(sock, server_context(self._leaf))]))
        self.hold.set()

    def stop(self) -> None:
        """Close the port and all connections."""
        self.may_speak.set()
        self._running.close()

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._place.close()

    def device(self, **changes: Any) -> Device:
        """What it announces."""
        der = ssl.PEM_cert_to_DER_cert(self._leaf.read_text().partition("-----BEGIN PRIVATE")[0])
        values: dict[str, Any] = {
            "name": self.name, "instance_id": f"{sum(self.name.encode()):08x}", "host": f"{self.name}.local",
            "addresses": ("127.0.0.1",), "port": self._port, "fingerprint": hashlib.sha256(der).hexdigest(),
        }  # fmt: skip
        return Device(**{**values, **changes})

    def inferences(self) -> int:
        """How many came here."""
        return sum(path.endswith("/infer") for _, path in self.requests)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """As ever, unless it is to say nothing."""
        self.knocks += 1
        if not self.may_speak.is_set():
            await asyncio.to_thread(self.may_speak.wait, 30)
        return await super().answer(request)

    def describe(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """The index as this device has it; None: the token may not ask."""
        if request.path != "/v2/repository/index":
            return super().describe(request, body)
        if self.index is None:
            return self.error(403, "needs the scope read", {})
        return web.json_response(self.index)


class Listed:
    """A source of devices: those of a list, and what a test tells of later. For any thread."""

    def __init__(self, devices: list[Device]) -> None:
        self._devices = devices
        self._tell: Callable[[Device | None, str], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, on_change: OnChange) -> Listed:
        """What a fleet opens."""
        self._tell = on_change
        return self

    async def start(self) -> None:
        """Tell of all that are known."""
        self._loop = asyncio.get_running_loop()
        for device in self._devices:
            self.say(device, device.name)

    async def close(self) -> None:
        """Nothing is open here."""

    def say(self, device: Device | None, name: str) -> None:
        """A device came, changed or left."""
        assert self._loop is not None
        assert self._tell is not None
        self._loop.call_soon_threadsafe(self._tell, device, name)


class Both:
    """The fleet's client for threads (in a thread, as its callers would) or for asyncio; every call is awaited."""

    def __init__(self, kind: str, fleet: Fleet) -> None:
        self._is_sync = kind == "sync"
        self._fleet = fleet
        self.client: Any = None

    async def __aenter__(self) -> Self:
        if self._is_sync:
            self.client = await asyncio.to_thread(FleetClient, self._fleet)
        else:
            self.client = await AsyncFleetClient(self._fleet).__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.call("close")

    async def call(self, name: str, *args: Any, **options: Any) -> Any:
        """Call a method."""
        method = getattr(self.client, name)
        if self._is_sync:
            return await asyncio.to_thread(method, *args, **options)
        done = method(*args, **options)
        return await done if asyncio.iscoroutine(done) else done


class Street:
    """Several sites, the file of whom is trusted, and clients that know them."""

    def __init__(self, folder: Path, certificates: tuple[Path, Path]) -> None:
        self.ca, self.leaf = certificates
        self.sites: list[Site] = []
        self.trust = folder / "trust.json"
        self.believe(self.ca)

    def believe(self, *authorities: Path) -> None:
        """Trust whoever has a certificate of these."""
        known = tuple(Authority(fingerprint=path.stem, certificate=path.read_text()) for path in authorities)
        new = self.trust.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(Trusted(authorities=known)))
        new.replace(self.trust)

    def add(self, name: str, leaf: Path | None = None) -> Site:
        """One more device, listening."""
        site = Site(name, leaf or self.leaf)
        site.start()
        self.sites.append(site)
        return site

    def close(self) -> None:
        """End all."""
        for site in self.sites:
            site.close()

    def listed(self) -> Listed:
        """All that are there now."""
        return Listed([site.device() for site in self.sites])

    def client(self, kind: str, listed: Listed | None = None, **options: Any) -> Both:
        """A client that is told of all, or of what `listed` says."""
        defaults: dict[str, Any] = {"model": "echo", "token": TOKEN, "timeout_s": 80.0, "wait_s": 40.0}
        return Both(kind, Fleet((listed or self.listed()).open, TrustStore(self.trust), **{**defaults, **options}))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """CA file, and certificate with key."""
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def street(tmp_path: Path, certificates: tuple[Path, Path]) -> Iterator[Street]:
    """No devices yet."""
    street = Street(tmp_path, certificates)
    yield street
    street.close()
