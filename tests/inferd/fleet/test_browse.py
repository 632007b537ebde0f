"""Where devices are looked for, and what a network full of strangers can do to a browser."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from inferd.fleet import browse
from inferd.fleet.browse import AsyncBrowser
from inferd.fleet.interfaces import Interface, find_interfaces, multicast_choices, nearest_first
from inferd.fleet.record import SERVICE, Device

ETH = Interface("eth0", 2, ("10.0.0.7/24", "fd00::7/64"))


class Ip(NamedTuple):
    """An address as ifaddr has it."""

    ip: str | tuple[str, int, int]
    network_prefix: int


class Adapter(NamedTuple):
    """An interface as ifaddr has it."""

    name: str
    index: int | None
    ips: list[Ip]


ADAPTERS: list[Any] = [
    Adapter("lo", 1, [Ip("127.0.0.1", 8)]),
    Adapter("eth0", 2, [Ip(("fd00::7", 0, 0), 64), Ip("10.0.0.7", 24)]),
    Adapter("docker0", 3, [Ip("172.17.0.1", 16)]),
    Adapter("wlan0", 4, [Ip("192.168.1.9", 24)]),
    Adapter("eth1", 5, []),
]


def test_containers_and_loopback_are_left_out_unless_named() -> None:
    """172.17.0.1 is somebody else on every machine."""
    assert [each.name for each in find_interfaces((), ADAPTERS)] == ["eth0", "wlan0"]
    assert [each.name for each in find_interfaces(("docker0", "w*"), ADAPTERS)] == ["docker0", "wlan0"]
    assert find_interfaces(("eth0",), ADAPTERS) == (ETH,)


def test_addresses_of_the_own_network_come_first() -> None:
    """A device with two networks is called over the one that we share."""
    addresses = ("192.168.7.1", "10.0.0.9", "fe80::9%2", "fd00::9")
    assert nearest_first(addresses, (ETH,)) == ("10.0.0.9", "fd00::9", "192.168.7.1", "fe80::9%2")


def test_multicast_goes_by_address_and_by_index() -> None:
    """IPv4 by its address, IPv6 by the interface, where the machine has it."""
    assert multicast_choices((ETH,)) in (["10.0.0.7", 2], ["10.0.0.7"])
    assert multicast_choices(()) == []


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most three devices; each look-up finds one."""

    async def look_up(self: AsyncBrowser, zeroconf: object, name: str) -> None:
        self._set(name, Device(name=name[:4], instance_id="00" * 8, host="h", addresses=("10.0.0.9",), port=1))

    monkeypatch.setattr(browse, "MAX_DEVICES", 3)
    monkeypatch.setattr(AsyncBrowser, "_look_up", look_up)


async def test_a_flood_of_devices_stays_within_bounds(few: None) -> None:
    """Those known first stay and are heard; the rest wait until there is room."""
    from zeroconf import ServiceStateChange as Change

    told: list[tuple[bool, str]] = []
    browser = AsyncBrowser(on_change=lambda device, name: told.append((device is not None, name)))
    heard: Any = browser._heard

    def hear(number: int, change: Change) -> None:
        heard(zeroconf=None, service_type=SERVICE, name=f"dev{number}.{SERVICE}", state_change=change)

    for number in range(100):
        hear(number, Change.Added)
    await asyncio.gather(*browser._look_ups.values())
    assert [each.name for each in browser.devices()] == ["dev0", "dev1", "dev2"]
    hear(0, Change.Removed)
    hear(0, Change.Removed)
    hear(50, Change.Updated)
    await asyncio.gather(*browser._look_ups.values())
    assert [each.name for each in browser.devices()] == ["dev1", "dev2", "dev5"]
    assert told[-2:] == [(False, "dev0"), (True, "dev5")]
    await browser.close()
    assert not browser._settling


async def test_a_browser_without_a_network_finds_nobody() -> None:
    """And closing it twice is no harm."""
    async with AsyncBrowser(interfaces=("no-such-interface",)) as browser:
        assert browser.devices() == ()
    await browser.close()


def test_a_plain_client_does_not_load_zeroconf() -> None:
    """Who calls one daemon pays nothing for fleets."""
    script = "import sys; from inferd import Client, AsyncClient; print('zeroconf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
