"""What is told of a daemon, when, and to which addresses it leads."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import msgspec
import pytest

from inferd.fleet.interfaces import Interface
from inferd.fleet.record import Device
from inferd_agent.config import Listener
from inferd_agent.discovery import Advertiser, advertiser, default_name, find_lan, instance_id
from inferd_agent.discovery.advertiser import LOAD_EVERY_S, LOOK_EVERY_S, REPEAT_EVERY_S, is_due
from inferd_agent.discovery.facts import Facts, LoadMeter, models_digest
from inferd_agent.discovery.reach import reached
from inferd_agent.sockets import Bound
from inferd_runtime import ModelDescription, RuntimeFigures, State

ETH = Interface("eth0", 2, ("10.0.0.7/24", "fd00::7/64", "fe80::7/64"))
DEVICE = Device(name="a", instance_id="00" * 8, host="inferd-0.local", addresses=("10.0.0.7",), port=8470)


def bound(host: str, **more: bool) -> Bound:
    """A listener with a bound socket, where it can be bound on this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((host, 0))
    return Bound(Listener("tcp", host=host, port=0, **more), (sock,))


def figures(**changes: float) -> RuntimeFigures:
    """An idle runtime with four cores, with changes."""
    idle = {
        "core_floor": 1, "core_ceiling": 4, "core_size": 4, "core_used": 0, "queued_jobs": 0, "running_jobs": 0,
        "held_bytes": 0, "max_held_bytes": 100, "host_busy_cores": 0.0, "own_busy_cores": 0.0,
    }  # fmt: skip
    return RuntimeFigures(**(idle | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "addresses"),
    [("::", ("10.0.0.7", "fd00::7")), ("0.0.0.0", ("10.0.0.7",)), ("127.0.0.1", ())],
)
def test_only_addresses_that_the_listener_answers_are_told(host: str, addresses: tuple[str, ...]) -> None:
    """All of them for [::], IPv4 for 0.0.0.0, its own for an address; link-local ones need no telling."""
    made = bound(host)
    assert reached(made, (ETH,)) == addresses
    made.close()


def test_a_link_local_address_is_better_than_none() -> None:
    """Two devices on a cable, without a router."""
    made = bound("::")
    assert reached(made, (Interface("eth0", 2, ("fe80::7/64",)),)) == ("fe80::7",)
    made.close()


def test_only_tls_off_this_machine_is_for_the_lan() -> None:
    """Loopback and Unix sockets are no business of the LAN."""
    made = [bound("127.0.0.1"), Bound(Listener("unix", path="/s"), ()), bound("0.0.0.0")]
    found = find_lan(made)
    assert found is made[2]
    for each in (made[0], made[2]):
        each.close()


def test_the_load_is_smooth_and_coarse() -> None:
    """One request changes nothing, steady work does; a queue or full buffers make a device full, calm makes it idle."""
    meter = LoadMeter()
    assert meter.take(figures()) == "idle"
    assert meter.take(figures(core_used=2)) == "light"
    assert [meter.take(figures(core_used=4)) for _ in range(9)][-1] == "busy"
    assert [meter.take(figures(core_used=4, queued_jobs=40)) for _ in range(9)][-1] == "full"
    assert [meter.take(figures()) for _ in range(20)][-1] == "idle"
    assert meter.take(figures(held_bytes=95)) == "full"
    assert LoadMeter().take(figures(own_busy_cores=None)) == "idle"


def test_the_load_counts_the_cores_that_are_left() -> None:
    """A device whose cores others took is busy with little."""
    meter = LoadMeter()
    assert [meter.take(figures(core_size=1, core_used=1)) for _ in range(9)][-1] == "busy"


def test_the_digest_changes_with_what_serves_and_tells_no_names() -> None:
    """Another file, another version, a model gone; not with the order, nor with what does not serve."""
    one = ModelDescription("secret-project", 1, State.READY, digest="aa")
    two = ModelDescription("b", 1, State.READY, digest="bb")
    loading = ModelDescription("c", 1, State.LOADING, digest="cc")
    digest = models_digest([one, two])
    assert digest == models_digest([loading, two, one])
    assert len(digest) == 16
    assert "secret" not in digest
    others = [[one], [two], [], [ModelDescription("b", 1, State.READY, digest="b2"), one]]
    assert len({digest, *map(models_digest, others)}) == 5


def test_changes_are_told_soon_loads_seldom_and_silence_ends() -> None:
    """The network is spared: one telling a second, of the load alone one in five, and one a minute without news."""
    moved = msgspec.structs.replace(DEVICE, addresses=("10.0.0.8",))
    busy = msgspec.structs.replace(DEVICE, load="busy")
    assert not is_due(DEVICE, moved, LOOK_EVERY_S / 2)
    assert is_due(DEVICE, moved, LOOK_EVERY_S)
    assert not is_due(DEVICE, busy, LOAD_EVERY_S - 1)
    assert is_due(DEVICE, busy, LOAD_EVERY_S)
    assert not is_due(DEVICE, DEVICE, REPEAT_EVERY_S - 1)
    assert is_due(DEVICE, DEVICE, REPEAT_EVERY_S)


def test_the_instance_id_stays(tmp_path: Path) -> None:
    """Over restarts; a damaged file is replaced."""
    path = tmp_path / "instance"
    first = instance_id(path)
    assert instance_id(path) == first
    path.write_bytes(b"\xff" * 100)
    second = instance_id(path)
    assert second != first
    assert instance_id(path) == second


def test_the_name_is_the_hosts_unless_given() -> None:
    """Cut and cleaned, and never empty."""
    assert default_name("kitchen", "box.lan") == "kitchen"
    assert default_name("", "box.lan") == "box"
    assert default_name("\x1b", "") == "inferd"
    assert default_name("") == os.uname().nodename.split(".")[0][:63]


async def test_without_a_network_the_daemon_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Announcing that cannot be is told once, with what to do; starting, asking and closing do no harm."""

    def refuse(patterns: object) -> tuple[Interface, ...]:
        raise OSError("Address family not supported by protocol")

    facts = Facts("ready", "idle", "", "0.1.0", "ab" * 32)
    made = bound("127.0.0.1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(advertiser, "find_interfaces", refuse)
        announced = Advertiser(made, lambda: facts, name="a", instance_id="00" * 8)
        announced.start()
        await asyncio.wait({announced._task} - {None})  # type: ignore[type-var]
        assert announced.device is None
        await announced.close()
        await announced.close()
    made.close()
    assert "lan.conf" in caplog.text
