"""Envoy before real daemons: balanced, verified, and not without a way out when one of them fails."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd import AsyncClient
from inferd.errors import InferdError, NotFound, Unauthenticated
from inferd_agent.errors import ConfigError
from inferd_agent.gateway.envoy import Envoy, find_envoy
from inferd_agent.gateway.files import Files
from inferd_agent.gateway.settings import read_settings
from inferd_agent.gateway.upstream import Member
from inferd_agent.tls import TlsMaterial
from tests import onnx_models
from tests.agent.gateway.devices import device
from tests.e2e.daemon import Daemon, until
from tests.e2e.raw import free_port

ROW = {"x": np.ones((1, 64), np.float32)}


@dataclass(frozen=True, slots=True)
class Device:
    """A daemon on loopback as a device of the fleet."""

    daemon: Daemon
    port: int

    def member(self, *, anchors: str = "ca.pem", **fields: Any) -> Member:
        """As the roster would have it, believed by one of its own files."""
        text = (self.daemon.state / "tls" / anchors).read_text()
        name = self.daemon.folder.name
        found = device(name, addresses=("127.0.0.1",), port=self.port, **fields)
        return Member(found, text, frozenset({"mlp", "looping", name}))


@dataclass(frozen=True, slots=True)
class Fleet:
    one: Device
    two: Device
    token: str

    def impostor(self) -> Member:
        """A device in the place of another."""
        return Member(self.two.member().device, self.one.member().anchors, frozenset({"mlp"}))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two devices with one token and `mlp`; each serves a model of its own name besides."""
    devices = []
    for name in ("one", "two"):
        folder = tmp_path_factory.mktemp("fleet") / name
        for model in ("mlp", name):
            onnx_models.mlp(folder / "models" / model / "1" / "model.onnx")
        onnx_models.looping(folder / "models" / "looping" / "1" / "model.onnx", width=64)
        port = free_port()
        devices.append(Device(Daemon(folder, listen=(f"tcp:127.0.0.1:{port}",)), port))
    one, two = devices
    with one.daemon:
        token = one.daemon.token()
        shutil.copytree(one.daemon.state, two.daemon.state, ignore=shutil.ignore_patterns("tls", "cache", "lock"))
        with two.daemon:
            until(lambda: two.daemon.knows(token))
            yield Fleet(one, two, token)


class Gateway:
    """Envoy with its files, and a client of it."""

    def __init__(self, folder: Path, token: str, tls: Path | None = None) -> None:
        port = free_port()
        settings = read_settings(f"tcp:127.0.0.1:{port}?tls=off&insecure=on", patience_s=0.5)
        if tls is not None:
            cert, key = str(tls / "cert.pem"), str(tls / "key.pem")
            settings = read_settings(f"tcp:127.0.0.1:{port}", patience_s=30, cert=cert, key=key)
        self.files = Files(folder)
        self.files.prepare(settings)
        self.files.update(())
        self.envoy = Envoy(find_envoy(), self.files.bootstrap, drain_s=30)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self.client = AsyncClient(self.url, token=token, timeout_s=20, ca=tls / "ca.pem" if tls else None)

    async def follow(self, *members: Member, healthy: int) -> None:
        """Change the fleet, and wait until Envoy has so many devices that are well."""
        await asyncio.to_thread(self.files.update, members)
        flags: list[str] = []
        end_s = time.monotonic() + 30
        while len(flags) != len(members) or flags.count("healthy") != healthy:
            assert time.monotonic() < end_s, f"Envoy has {flags}, expected {healthy} healthy of {len(members)}"
            await asyncio.sleep(0.02)
            lines = (await self.envoy._ask("GET", "/clusters")).splitlines()
            flags = [line.rpartition("::")[2] for line in lines if "::health_flags::" in line]

    async def counts(self) -> dict[str, int]:
        """Requests that each device has got from Envoy, by port."""
        lines = (await self.envoy._ask("GET", "/clusters")).splitlines()
        totals = [line.split("::") for line in lines if "::rq_total::" in line]
        return {fields[1].rpartition(":")[2]: int(fields[3]) for fields in totals}


@contextlib.asynccontextmanager
async def running(folder: Path, token: str, tls: Path | None = None) -> AsyncIterator[Gateway]:
    """A gateway for as long as the block lasts."""
    found = await asyncio.to_thread(Gateway, folder, token, tls)
    await found.envoy.start()
    try:
        yield found
    finally:
        await found.client.close()
        await found.envoy.stop()
        found.files.close()


@pytest.fixture
async def gateway(fleet: Fleet, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path / "gateway", fleet.token) as found:
        yield found


async def test_calls_are_balanced_and_verified(fleet: Fleet, gateway: Gateway) -> None:
    """Both devices answer, a model that one serves alone is asked of that one, and tokens are the devices' affair."""
    await gateway.follow(fleet.one.member(), fleet.two.member(), healthy=2)
    for _ in range(40):
        assert (await gateway.client.infer("mlp", ROW))["probabilities"].shape == (1, 10)
    first = await gateway.counts()
    assert min(first.values()) >= 5, first
    for _ in range(10):
        await gateway.client.infer("two", ROW)
    second = await gateway.counts()
    assert second[str(fleet.one.port)] - first[str(fleet.one.port)] <= 5  # health checks count as well
    with pytest.raises(NotFound, match="there is no model 'none'"):
        await gateway.client.infer("none", ROW)
    with pytest.raises(NotFound, match="call the device itself"):
        await gateway.client.load("mlp")
    async with AsyncClient(gateway.url, token="") as stranger:
        assert await stranger.is_ready()
        with pytest.raises(Unauthenticated):
            await stranger.infer("mlp", ROW)


async def test_a_certificate_of_somebody_else_gets_nothing(fleet: Fleet, gateway: Gateway) -> None:
    """A device that cannot prove who it is gets no request."""
    await gateway.follow(fleet.one.member(), fleet.impostor(), healthy=1)
    for _ in range(20):
        await gateway.client.infer("mlp", ROW)
    assert (await gateway.counts())[str(fleet.two.port)] == 0


async def test_nor_does_it_as_the_only_device(fleet: Fleet, gateway: Gateway) -> None:
    """When nobody is well, all are tried, and still nobody unproven is told anything."""
    await gateway.follow(fleet.impostor(), healthy=0)
    with pytest.raises(InferdError, match="gateway: "):
        await gateway.client.infer("mlp", ROW)


async def test_a_pinned_certificate_is_enough(fleet: Fleet, gateway: Gateway) -> None:
    """A pin without a CA, as devices with a certificate of their own have it."""
    await gateway.follow(fleet.one.member(anchors="cert.pem"), healthy=1)
    assert await gateway.client.is_ready("mlp")


async def test_a_device_that_hangs_keeps_nobody_waiting(fleet: Fleet, gateway: Gateway) -> None:
    """Its connections stay open, and it answers nothing: after a while another device is asked."""
    await gateway.follow(fleet.one.member(), fleet.two.member(), healthy=2)
    assert fleet.two.daemon.process is not None
    fleet.two.daemon.process.send_signal(signal.SIGSTOP)
    try:
        for _ in range(6):  # half of them meet it, until the health check notices
            assert (await gateway.client.infer("mlp", ROW, timeout_s=20))["probabilities"].shape == (1, 10)
    finally:
        fleet.two.daemon.process.send_signal(signal.SIGCONT)


async def test_its_own_tls_and_a_stop_that_waits(fleet: Fleet, tmp_path: Path) -> None:
    """Callers verify the gateway's certificate; what is under way when it stops is finished."""
    await asyncio.to_thread(TlsMaterial, tmp_path / "tls")
    async with running(tmp_path / "gateway", fleet.token, tmp_path / "tls") as gateway:
        await gateway.follow(fleet.one.member(), healthy=1)
        call = asyncio.create_task(gateway.client.infer("looping", {"turns": np.array([20_000], np.int64)}))
        while not await gateway.envoy._active():
            assert not call.done()
            await asyncio.sleep(0.005)
        await gateway.envoy.stop()
        assert (await call)["y"].shape == (64, 64)


async def test_a_port_that_is_taken_is_said(fleet: Fleet, tmp_path: Path) -> None:
    """The start ends with Envoy's own words above."""
    url = f"tcp:127.0.0.1:{fleet.one.port}?tls=off&insecure=on"
    files = await asyncio.to_thread(Files, tmp_path)
    await asyncio.to_thread(files.prepare, read_settings(url))
    await asyncio.to_thread(files.update, ())
    envoy = Envoy(await asyncio.to_thread(find_envoy), files.bootstrap, drain_s=1)
    with pytest.raises(ConfigError, match="Envoy ended"):
        await envoy.start()
    files.close()
