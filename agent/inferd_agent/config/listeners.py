"""Listener URLs: `unix:/path[?tls=off]` and `tcp:HOST:PORT[?tls=off&insecure=on]`, for gRPC with `grpc+` before them.
`memory+unix:/path` takes shared memory from callers.

The rule kept here: a listener without TLS is a Unix socket, or a loopback address with an explicit `insecure=on`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from inferd_agent.errors import ConfigError

UNIX_PATH_MAX_BYTES = 107
_HINT = "write unix:/path/to/socket or tcp:HOST:PORT, e.g. tcp:0.0.0.0:8470"
_HOST = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,252})$")


@dataclass(frozen=True, slots=True)
class Listener:
    """Where to listen, as asked for."""

    kind: Literal["unix", "tcp"]
    path: str = ""
    host: str = ""
    port: int = 0
    tls: bool = True
    insecure: bool = False
    grpc: bool = False
    memory: bool = False

    @property
    def is_rest(self) -> bool:
        """Whether it speaks HTTP."""
        return not self.grpc and not self.memory

    @property
    def url(self) -> str:
        """The URL that parses to this listener."""
        if self.memory:
            return f"memory+unix:{self.path}"
        if self.kind == "unix":
            place = f"unix:{self.path}"
        else:
            place = f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"
        place = f"grpc+{place}" if self.grpc else place
        return place + ("" if self.tls else "?tls=off") + ("&insecure=on" if self.insecure else "")

    def __str__(self) -> str:
        return self.url


def parse_listener(url: str) -> Listener:
    """Parse and check one URL; ConfigError says what is wrong and what to write."""
    scheme, colon, rest = url.partition(":")
    if scheme == "memory+unix":
        return _parse_memory(url, rest)
    kind = scheme.removeprefix("grpc+")
    is_grpc = kind != scheme
    if not colon or kind not in ("unix", "tcp"):
        instead = rest.removeprefix("//").rstrip("/") if kind in ("http", "https") else ""
        raise _bad(url, f"write tcp:{instead}" if instead else _HINT)
    place, _, query = rest.partition("?")
    switches = _switches(url, query)
    tls = switches.get("tls", True)
    insecure = switches.get("insecure", False)
    if kind == "unix":
        if "insecure" in switches:
            raise _bad(url, "insecure is for tcp; a Unix socket takes tls=off alone")
        return Listener("unix", path=_path(url, place), tls=tls, grpc=is_grpc)
    host, port = _host_and_port(url, place)
    if not tls and not insecure:
        raise _bad(url, "plain TCP needs an explicit insecure=on, and works on loopback only")
    if insecure and tls:
        raise _bad(url, "insecure=on means nothing without tls=off; drop it")
    if insecure and not is_loopback(host):
        raise _bad(url, f"{host} is not a loopback address; without TLS only 127.0.0.1, [::1] or localhost can listen")
    return Listener("tcp", host=host, port=port, tls=tls, insecure=insecure, grpc=is_grpc)


def _parse_memory(url: str, rest: str) -> Listener:
    path, mark, _ = rest.partition("?")
    if mark:
        raise _bad(url, "a socket for memory has no options: file descriptors cannot pass through TLS")
    return Listener("unix", path=_path(url, path), tls=False, memory=True)


def is_loopback(host: str) -> bool:
    """True of localhost and of loopback addresses, not of names that might resolve to one."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_lan_listener(listener: Listener) -> bool:
    """Whether other machines can call it by REST: TCP with TLS, not on loopback."""
    return listener.kind == "tcp" and not listener.grpc and listener.tls and not is_loopback(listener.host)


def lan_listener(port: int) -> Listener:
    """All addresses, IPv6 too where the machine has it."""
    return Listener("tcp", host="::" if socket.has_dualstack_ipv6() else "0.0.0.0", port=port)  # noqa: S104  asked for


def _bad(url: str, reason: str) -> ConfigError:
    return ConfigError(f"listener {url!r}: {reason}")


def _switches(url: str, query: str) -> dict[str, bool]:
    switches: dict[str, bool] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in ("tls", "insecure"):
            near = get_close_matches(name, ("tls", "insecure"), n=1)
            raise _bad(url, f"unknown option {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        if value not in ("on", "off"):
            raise _bad(url, f"{name} is on or off, not {value!r}")
        if name in switches:
            raise _bad(url, f"{name} is given twice")
        switches[name] = value == "on"
    return switches


def _path(url: str, path: str) -> str:
    if not path.startswith("/"):
        raise _bad(url, "the socket's path must be absolute, e.g. unix:/run/inferd/inferd.sock")
    if "\0" in path or path.endswith("/"):
        raise _bad(url, "the socket's path must name a file")
    size = len(path.encode("utf-8", "surrogateescape"))
    if size > UNIX_PATH_MAX_BYTES:
        raise _bad(url, f"the socket's path has {size} bytes; the kernel takes {UNIX_PATH_MAX_BYTES}")
    return path


def _host_and_port(url: str, place: str) -> tuple[str, int]:
    host, colon, port = place.rpartition(":")
    if not colon or not host:
        raise _bad(url, _HINT)
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535:
        raise _bad(url, f"the port is a number from 0 to 65535, not {port!r}")
    if host.startswith("[") and host.endswith("]"):
        return _ipv6(url, host[1:-1]), int(port)
    if ":" in host:
        raise _bad(url, f"write an IPv6 address in brackets, e.g. tcp:[::1]:{port}")
    if not _HOST.match(host):
        raise _bad(url, f"{host!r} is not a host name or address; for all addresses write tcp:0.0.0.0:{port}")
    return host, int(port)


def _ipv6(url: str, text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise _bad(url, f"[{text}] is not an IPv6 address") from None
