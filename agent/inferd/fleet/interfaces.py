"""The interfaces on which devices are announced and looked for.

Those of containers, virtual machines and tunnels are left out unless asked for by name: their addresses mean something
else on every machine, and a device that announces 172.17.0.1 sends its callers to themselves.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ifaddr import Adapter
    from zeroconf.asyncio import AsyncZeroconf

_LEFT_OUT = (
    "lo", "docker*", "br-*", "veth*", "virbr*", "vnet*", "cni*", "flannel*", "cali*", "cilium*", "podman*", "lxc*",
    "lxd*", "incus*", "tun*", "tap*", "wg*", "tailscale*", "zt*", "dummy*", "ifb*",
)  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Interface:
    """An interface with its addresses and their prefix lengths, as `10.0.0.7/24`; sorted."""

    name: str
    index: int
    networks: tuple[str, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses alone."""
        return tuple(each.partition("/")[0] for each in self.networks)


def find_interfaces(patterns: Sequence[str] = (), adapters: Iterable[Adapter] | None = None) -> tuple[Interface, ...]:
    """Those whose names match one of `patterns` (with `*`); without patterns all that lead to a LAN. Blocks shortly."""
    if adapters is None:
        import ifaddr

        adapters = ifaddr.get_adapters()
    found = []
    for adapter in adapters:
        if not _is_wanted(adapter.name, patterns):
            continue
        networks = sorted(_network(ip.ip, ip.network_prefix) for ip in adapter.ips)
        if networks and adapter.index is not None:
            found.append(Interface(adapter.name, adapter.index, tuple(networks)))
    return tuple(sorted(found))


def nearest_first(addresses: Iterable[str], interfaces: Iterable[Interface]) -> tuple[str, ...]:
    """The addresses that one of our own networks reaches directly, then the others, each in the order they came."""
    networks = [ip_interface(each).network for interface in interfaces for each in interface.networks]

    def is_far(address: str) -> bool:
        here = ip_address(address.partition("%")[0])
        return not any(here.version == network.version and here in network for network in networks)

    return tuple(sorted(addresses, key=is_far))


def multicast_choices(interfaces: Iterable[Interface]) -> list[str | int]:
    """As zeroconf wants them: IPv4 by address, IPv6 by the interface's index."""
    choices: list[str | int] = []
    for interface in interfaces:
        choices += [address for address in interface.addresses if ":" not in address]
        if socket.has_dualstack_ipv6() and any(":" in address for address in interface.addresses):
            choices.append(interface.index)
    return choices


async def open_zeroconf(interfaces: Iterable[Interface]) -> AsyncZeroconf:
    """zeroconf on these interfaces and the running loop, IPv6 too where the machine has it. OSError: no multicast."""
    await asyncio.to_thread(import_module, "zeroconf.asyncio")  # takes a tenth of a second, which others would wait
    from zeroconf import IPVersion
    from zeroconf.asyncio import AsyncZeroconf

    version = IPVersion.All if socket.has_dualstack_ipv6() else IPVersion.V4Only
    return AsyncZeroconf(interfaces=multicast_choices(interfaces), ip_version=version)


def _is_wanted(name: str, patterns: Sequence[str]) -> bool:
    if patterns:
        return any(fnmatchcase(name, pattern) for pattern in patterns)
    return not any(fnmatchcase(name, pattern) for pattern in _LEFT_OUT)


def _network(ip: str | tuple[str, int, int], prefix: int) -> str:
    return f"{ip if isinstance(ip, str) else ip[0]}/{prefix}"
