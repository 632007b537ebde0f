"""A fleet called as one, over real sockets: devices fail, hang, drain, come and go, and lie; no call is lost."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd import AsyncClient, Client, errors
from inferd.fleet import line, pool
from inferd.protocol.datatypes import Array
from tests.inferd.client.server import make_certificates
from tests.inferd.fleet.conftest import KINDS, Both, Listed, Site, Street

both_kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that this machine keeps waiting is neither doubted nor given up."""
    monkeypatch.setattr(pool, "SILENCE_S", 1000.0)
    monkeypatch.setattr(line, "VISIT_S", 30.0)
    monkeypatch.setattr(line, "CONNECT_S", 30.0)


@pytest.fixture
def doubtful(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubts come soon, so that tests need not wait for them."""
    monkeypatch.setattr(pool, "SILENCE_S", 0.1)


@pytest.fixture
def impatient(doubtful: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a device must not be slow to say that it lives."""
    monkeypatch.setattr(line, "VISIT_S", 1.5)


def image(number: int) -> Array:
    return np.full(4, number, np.float32)


async def ask(client: Both, number: int = 1, **options: Any) -> None:
    """One inference, whose answer must be its own."""
    answer = await client.call("infer", "echo", {"x": image(number)}, **options)
    assert (answer["x"] == number).all()


async def ask_many(client: Both, numbers: range, at_once: int = 8) -> None:
    slots = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with slots:
            await ask(client, number)

    await asyncio.gather(*map(one, numbers))


async def until_devices(client: Both, *names: str) -> None:
    """Wait until exactly these may be called."""
    async with asyncio.timeout(60):
        while [device.name for device in await client.call("devices")] != sorted(names):
            await asyncio.sleep(0.01)


async def until_inferences(site: Site, count: int) -> None:
    """Wait until so many have come to it."""
    async with asyncio.timeout(60):
        while site.inferences() < count:
            await asyncio.sleep(0.005)


@both_kinds
async def test_calls_are_spread(kind: str, street: Street) -> None:
    """Every device takes its part, every answer is the right one. How large a part, the pool's own tests tell: here
    those get less that this machine is slow to run."""
    sites = [street.add(name) for name in ("a", "b", "c")]
    asked = 0
    async with street.client(kind) as client, asyncio.timeout(60):
        await until_devices(client, "a", "b", "c")
        while asked < 150 or min(site.inferences() for site in sites) < 15:
            await ask_many(client, range(asked, asked + 50))
            asked += 50
    assert sum(site.inferences() for site in sites) == asked


@both_kinds
async def test_the_rest_of_the_api(kind: str, street: Street) -> None:
    """Any device answers for all; what changes a device is for a client of that device."""
    street.add("a")
    async with street.client(kind) as client:
        assert await client.call("is_ready", "echo")
        assert await client.call("models") == ["echo"]
        assert (await client.call("metadata", "echo"))["name"] == "echo"
        for verb in ("load", "unload", "measure"):
            with pytest.raises(errors.Unsupported, match="one device"):
                await client.call(verb, "echo")
        with pytest.raises(errors.NoDevice, match="a: does not serve it"):
            await client.call("infer", "other", {"x": image(1)}, timeout_s=0.3)


@both_kinds
async def test_a_killed_device_loses_no_call(kind: str, street: Street) -> None:
    """Its calls go to the others; when it is back it gets its part again."""
    sites = [street.add(name) for name in ("a", "b", "c")]
    async with street.client(kind) as client:
        await until_devices(client, "a", "b", "c")
        work = asyncio.create_task(ask_many(client, range(200)))
        await until_inferences(sites[0], 1)
        await asyncio.to_thread(sites[0].stop)
        await work
        await ask_many(client, range(20))
        before = sites[0].inferences()
        sites[0].start()
        await until_devices(client, "a", "b", "c")
        async with asyncio.timeout(60):
            while sites[0].inferences() == before:
                await ask_many(client, range(20))


@both_kinds
async def test_a_hung_device_loses_no_call(kind: str, street: Street, impatient: None) -> None:
    """A device that takes calls and says nothing is found dead; its calls move on, long before their deadline."""
    sites = [street.add(name) for name in ("a", "b")]
    async with street.client(kind, timeout_s=400) as client:
        await until_devices(client, "a", "b")
        sites[0].may_speak.clear()
        async with asyncio.timeout(60):
            await ask_many(client, range(40))
        assert sites[1].inferences() >= 40
        sites[0].may_speak.set()
        await until_devices(client, "a", "b")


@both_kinds
async def test_a_slow_call_is_not_a_dead_device(kind: str, street: Street, doubtful: None) -> None:
    """A device whose answer takes long, but that is otherwise well, is given its time."""
    site = street.add("a")
    site.index = [*(site.index or []), {"name": "held", "version": "1"}]
    site.hold.clear()
    async with street.client(kind, model=None) as client:
        await until_devices(client, "a")
        held = asyncio.create_task(client.call("infer", "held", {"x": image(5)}))
        async with asyncio.timeout(60):
            while sum(path == "/v2/repository/index" for _, path in site.requests) < 3:
                await asyncio.sleep(0.01)
        site.hold.set()
        assert ((await held)["x"] == 5).all()
        assert site.inferences() == 1


@both_kinds
async def test_a_draining_device_gets_no_calls(kind: str, street: Street) -> None:
    """As soon as it says so, and until it says otherwise."""
    sites = [street.add(name) for name in ("a", "b")]
    listed = street.listed()
    async with street.client(kind, listed) as client:
        await until_devices(client, "a", "b")
        listed.say(sites[0].device(state="draining"), "a")
        await ask(client)
        before = sites[0].inferences()
        await ask_many(client, range(40))
        assert sites[0].inferences() == before
        listed.say(None, "a")
        await until_devices(client, "b")
        listed.say(sites[0].device(), "a")
        await until_devices(client, "a", "b")


@both_kinds
@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
async def test_another_device_may_not_refuse(kind: str, status: int, street: Street) -> None:
    """A refusal is one device's; the call goes on to the next."""
    sites = [street.add(name) for name in ("a", "b")]
    async with street.client(kind) as client:
        await until_devices(client, "a", "b")
        sites[0].refusals.append((status, {"Retry-After": "1"}))
        await ask_many(client, range(20), at_once=1)
        assert not sites[0].refusals
    assert sum(site.inferences() for site in sites) == 21


@both_kinds
async def test_the_callers_mistake_goes_nowhere_else(kind: str, street: Street) -> None:
    """400 is told at once."""
    sites = [street.add(name) for name in ("a", "b")]
    async with street.client(kind) as client:
        await until_devices(client, "a", "b")
        for site in sites:
            site.refusals.append((400, {}))
        with pytest.raises(errors.InvalidRequest):
            await ask(client)
    assert sum(site.inferences() for site in sites) == 1


@both_kinds
async def test_an_impostor_gets_no_request(
    kind: str, street: Street, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A device of the same name with another certificate: refused in the handshake, loudly, and the true one stays."""
    true = street.add("a")
    listed = street.listed()
    fake = street.add("a", leaf=make_certificates(tmp_path, "other")[1])
    async with street.client(kind, listed) as client:
        await until_devices(client, "a")
        with caplog.at_level(logging.WARNING, "inferd"):
            listed.say(fake.device(), "a")
            async with asyncio.timeout(60):
                while "another certificate" not in caplog.text:
                    await ask(client)
        await ask_many(client, range(20))
        listed.say(None, "a")
        listed.say(fake.device(), "a")
        await until_devices(client)
        async with asyncio.timeout(60):
            while not await is_refused(client, "another certificate"):
                pass
    assert fake.requests == []
    assert true.inferences() >= 20


@both_kinds
async def test_trust_may_come_while_a_client_runs(kind: str, street: Street) -> None:
    """A device that nobody trusts gets nothing; as soon as somebody does, it serves. And the other way round."""
    site = street.add("a")
    street.believe()
    async with street.client(kind) as client:
        waiting = asyncio.create_task(ask(client))
        async with asyncio.timeout(60):
            while not await is_refused(client, "a: a is not trusted"):
                pass
        assert site.requests == []
        street.believe(street.ca)
        await waiting
        assert site.inferences() == 1


async def is_refused(client: Both, words: str) -> bool:
    """Whether a call without patience is refused with these words."""
    with pytest.raises(errors.NoDevice) as caught:
        await ask(client, timeout_s=0.05)
    return words in caught.value.message


@both_kinds
async def test_a_call_waits_for_the_first_device(kind: str, street: Street) -> None:
    """A client that was just made need not be slept upon; without devices a call says so after `wait_s`."""
    listed = Listed([])
    async with street.client(kind, listed) as client:
        waiting = asyncio.create_task(ask(client))
        await asyncio.sleep(0.01)
        listed.say(street.add("a").device(), "a")
        await waiting
    async with street.client(kind, Listed([]), wait_s=0.05) as client:
        with pytest.raises(errors.NoDevice, match="none found"):
            await ask(client)


@both_kinds
async def test_a_token_that_may_only_infer(kind: str, street: Street) -> None:
    """Where the index is refused the model's own readiness is asked; without a model devices are tried."""
    site = street.add("a")
    site.index = None
    for model in ("echo", None):
        async with street.client(kind, model=model) as client:
            await ask(client)
    assert ("GET", "/v2/models/echo/ready") in site.requests


@both_kinds
async def test_a_hedge_overtakes_a_slow_device(kind: str, street: Street) -> None:
    """After `hedge_s` a second device has the call too, and the first answer is taken."""
    sites = [street.add(name) for name in ("a", "b")]
    async with street.client(kind, hedge_s=0.25, timeout_s=1000) as client:
        await until_devices(client, "a", "b")
        sites[0].may_speak.clear()
        before = sites[0].knocks
        async with asyncio.timeout(60):
            while sites[0].knocks < before + 3:
                await ask(client)
    assert sites[1].inferences() >= 3


@both_kinds
async def test_closing_ends_everything(kind: str, street: Street) -> None:
    """Calls under way break, later ones are refused, threads end, closing twice is no error."""
    site = street.add("a")
    async with street.client(kind) as client:
        await until_devices(client, "a")
        site.may_speak.clear()
        before = site.knocks
        under_way = asyncio.create_task(ask(client))
        async with asyncio.timeout(60):
            while site.knocks == before:
                await asyncio.sleep(0.01)
        await client.call("close")
        with pytest.raises(errors.ConnectionFailed, match="closed"):
            await under_way
        with pytest.raises(errors.ConnectionFailed, match="closed"):
            await ask(client)
    assert not [thread for thread in threading.enumerate() if thread.name == "inferd-fleet"]


def test_a_plain_client_does_not_pay_for_fleets() -> None:
    """Neither zeroconf nor the fleet's rooms are loaded before `discover`."""
    code = (
        "import sys; from inferd import AsyncClient, Client; Client('http://127.0.0.1:1'); AsyncClient;"
        "sys.exit(any(name.startswith(('zeroconf', 'inferd.fleet')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


async def test_both_clients_discover() -> None:
    """With the same arguments; where there is no device, or no multicast, a call says so."""
    assert Client.discover.__kwdefaults__ == AsyncClient.discover.__kwdefaults__
    options: dict[str, Any] = {"model": "echo", "interfaces": ("lo",), "wait_s": 0.05, "trust": "/nowhere"}
    with pytest.raises(errors.ConnectionFailed):
        async with AsyncClient.discover(**options) as client:
            await client.infer("echo", {"x": image(1)})

    def in_a_thread() -> None:
        with Client.discover(**options) as client:
            client.infer("echo", {"x": image(1)})

    with pytest.raises(errors.ConnectionFailed):
        await asyncio.to_thread(in_a_thread)
