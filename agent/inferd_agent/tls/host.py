"""By which names and addresses this host may be called. Reads files and interfaces; never asks DNS, sends nothing."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import re
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inferd_agent.errors import ConfigError

_DNS_NAME = re.compile(r"^(\*\.)?[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*$")
_SIOCGIFADDR = 0x8915
_MOST_ADDRESSES = 64


@dataclass(frozen=True, slots=True)
class HostNames:
    """DNS names (lower case) and addresses (as `ipaddress` writes them), sorted and free of doubles."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[str], addresses: Iterable[str]) -> HostNames:
        return cls(tuple(sorted(set(names))), tuple(sorted(set(addresses))[:_MOST_ADDRESSES]))

    def plus(self, extra: Iterable[str]) -> HostNames:
        """With further names or addresses as a person writes them; ConfigError for what is neither."""
        names, addresses = list(self.names), list(self.addresses)
        for each in extra:
            try:
                addresses.append(str(ipaddress.ip_address(each)))
            except ValueError:
                names.append(_dns_name(each))
        return HostNames.of(names, addresses)


def find_host(root: Path = Path("/")) -> HostNames:
    """localhost, the host's own name in all its forms, and the addresses of its interfaces."""
    name = os.uname().nodename.lower()
    names = {"localhost", name, f"{name.split('.')[0]}.local", *_names_in_hosts_file(root / "etc/hosts", name)}
    addresses = {"127.0.0.1", "::1", *_ipv4_addresses(), *_ipv6_addresses(root / "proc/net/if_inet6")}
    return HostNames.of((each for each in names if _DNS_NAME.match(each)), addresses)


def _dns_name(text: str) -> str:
    with contextlib.suppress(UnicodeError):
        name = text.lower() if text.isascii() else text.encode("idna").decode()
        if _DNS_NAME.match(name) and len(name) <= 253:
            return name
    raise ConfigError(f"tls.names: {text!r} is neither a DNS name nor an address")


def _names_in_hosts_file(path: Path, name: str) -> Iterator[str]:
    """What the hosts file calls this host besides: usually its full name."""
    short = name.split(".")[0]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in path.read_text("utf-8").splitlines():
            _, *names = line.partition("#")[0].lower().split() or [""]
            if name in names or short in names:
                yield from (each for each in names if each.split(".")[0] == short)


def _ipv4_addresses() -> Iterator[str]:
    """The first address of every interface that has one."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, interface in socket.if_nameindex():
            with contextlib.suppress(OSError):
                request = struct.pack("256s", interface.encode()[:15])
                yield socket.inet_ntoa(fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, request)[20:24])


def _ipv6_addresses(path: Path) -> Iterator[str]:
    """Every address but link-local ones, which no URL can name without a zone."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text("ascii").splitlines():
            address = ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))
            if not address.is_link_local:
                yield str(address)
