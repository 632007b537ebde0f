"""Bound sockets from listeners, whether Unix, TCP or handed over by systemd, and who is at the other end of a Unix one.

Invariants: all listeners are bound, or none; a Unix socket is never reachable with a wider mode than asked for.
"""

from __future__ import annotations

import errno
import os
import pwd
import socket
import struct
import tempfile
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from inferd_agent.config import Listener, is_loopback
from inferd_agent.errors import ConfigError
from inferd_agent.socket_paths import Claim, claimed, group_id, inode_of, open_to

_SO_PEERGROUPS = 59  # asm-generic/socket.h; missing in the socket module
_MOST_BYTES = 1024  # what Python lets getsockopt return: 256 groups
_CREDENTIALS = struct.Struct("iII")
BACKLOG = 1024


class PeerCredentials(NamedTuple):
    """The process that connected, as the kernel saw it then; `groups` are its supplementary groups."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Bound:
    """A listener with its listening sockets: several where a name has several addresses, none where `bind_by` bound."""

    listener: Listener
    sockets: tuple[socket.socket, ...]
    is_inherited: bool = False
    _claim: Claim | None = field(default=None, repr=False)
    _port: int = field(default=0, repr=False)

    @property
    def url(self) -> str:
        """The listener's URL, with the port the kernel chose where 0 was asked for."""
        if self.listener.kind == "unix" or self.listener.port:
            return self.listener.url
        port = self.sockets[0].getsockname()[1] if self.sockets else self._port
        return replace(self.listener, port=port).url

    def close(self) -> None:
        """Close the sockets; remove the path if it is still ours. Callable twice."""
        if self._claim is not None:
            self._claim.leave()
        for each in self.sockets:
            each.close()


def bind(
    listeners: Iterable[Listener], *, mode: int, group: str = "", inherited: Sequence[socket.socket] = ()
) -> tuple[Bound, ...]:
    """Bind and listen on all, or on none: a failure closes what was opened. Raises ConfigError.

    An inherited socket serves the listener with its address; one that no listener names is an error.
    """
    waiting = {_address_url(each): each for each in inherited}
    bound: list[Bound] = []
    try:
        for listener in listeners:
            given = waiting.pop(_plain_url(listener), None)
            if given is not None:
                bound.append(_adopt(listener, given))
            elif listener.kind == "unix":
                bound.append(_bind_unix(listener, mode, group))
            else:
                bound.append(_bind_tcp(listener))
        if waiting:
            urls = ", ".join(waiting)
            raise ConfigError(f"systemd passed a socket for {urls} that server.listen does not name; add it there")
    except BaseException:
        for each in bound:
            each.close()
        raise
    return tuple(bound)


def bind_by(listen: Callable[[str], int], listener: Listener, *, mode: int, group: str = "") -> Bound:
    """As `bind`, for a library that makes its own sockets. Raises ConfigError.

    `listen` begins to listen at `unix:PATH` or `HOST:PORT` and gives the port, or raises RuntimeError.
    """
    try:
        if listener.kind == "unix":
            return _bind_unix_by(listen, listener, mode, group)
        port = listener.port
        for _, address in _resolve(listener):
            port = listen(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{listener}: cannot listen: {getattr(error, 'strerror', None) or error}") from error
    return Bound(listener, (), _port=port)


def peer_credentials(sock: socket.socket | TransportSocket) -> PeerCredentials | None:
    """Who is at the other end; None for TCP. Ask once per connection."""
    if sock.family != socket.AF_UNIX:
        return None
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_BYTES)
        groups = struct.unpack(f"{len(raw) // 4}I", raw)
    except OSError:  # an old kernel, or more groups than fit
        groups = _groups_by_name(uid, gid)
    return PeerCredentials(pid, uid, gid, groups)


def _groups_by_name(uid: int, gid: int) -> tuple[int, ...]:
    try:
        return tuple(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except (KeyError, OSError):
        return ()


def _plain_url(listener: Listener) -> str:
    return Listener(listener.kind, listener.path, listener.host, listener.port).url


def _address_url(sock: socket.socket) -> str:
    """The URL of a socket's own address."""
    address = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return Listener("unix", path=address if isinstance(address, str) else os.fsdecode(address)).url
    return Listener("tcp", host=address[0], port=address[1]).url


def _adopt(listener: Listener, sock: socket.socket) -> Bound:
    sock.setblocking(False)
    sock.listen(BACKLOG)
    return Bound(listener, (sock,), is_inherited=True)


# Unix sockets


def _bind_unix(listener: Listener, mode: int, group: str) -> Bound:
    path = Path(listener.path)
    with claimed(listener, mode) as lock:
        gid = group_id(group) if group else -1
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # The mode of the socket's own inode limits that of the file which bind creates, so there is no moment with
            # a wider one and no process-wide umask to change.
            os.fchmod(sock.fileno(), 0o600 & mode)
            sock.bind(str(path))
            open_to(path, mode, gid)
            sock.setblocking(False)
            sock.listen(BACKLOG)
            return Bound(listener, (sock,), _claim=Claim(path, inode_of(path), lock))
        except OSError as error:
            sock.close()
            raise ConfigError(f"{listener}: cannot listen: {error.strerror}") from error


def _bind_unix_by(listen: Callable[[str], int], listener: Listener, mode: int, group: str) -> Bound:
    """The library binds where nobody else may look, and the socket moves to its place once its mode is right."""
    path = Path(listener.path)
    with claimed(listener, mode) as lock:
        gid = group_id(group) if group else -1
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as private:
            made = Path(private) / "s"
            listen(f"unix:{made}")
            open_to(made, mode, gid)
            made.rename(path)
        return Bound(listener, (), _claim=Claim(path, inode_of(path), lock))


# TCP


def _bind_tcp(listener: Listener) -> Bound:
    sockets: list[socket.socket] = []
    try:
        for family, address in _resolve(listener):
            sockets.append(_listen(listener, family, address, _chosen_port(sockets)))
    except OSError as error:
        for each in sockets:
            each.close()
        raise ConfigError(f"{listener}: {_reason(listener, error)}") from error
    return Bound(listener, tuple(sockets))


def _chosen_port(sockets: Sequence[socket.socket]) -> int:
    """The port that the first address got, for the others of the same name."""
    return int(sockets[0].getsockname()[1]) if sockets else 0


def _resolve(listener: Listener) -> list[tuple[int, str]]:
    found = socket.getaddrinfo(
        listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    pairs = dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found)
    if not listener.tls and not all(is_loopback(address) for _, address in pairs):
        raise ConfigError(f"{listener}: the name has an address that is not loopback; TLS cannot be off")
    usable = [pair for pair in pairs if pair[0] == socket.AF_INET or len(pairs) == 1 or socket.has_dualstack_ipv6()]
    return usable or list(pairs)


def _listen(listener: Listener, family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # [::] takes IPv4 callers too; any other address only its own
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.setblocking(False)
        sock.bind((host, listener.port or port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _reason(listener: Listener, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {listener.port} is in use by another program (ss -ltnp shows which)"
        case errno.EADDRNOTAVAIL:
            return f"{listener.host} is not an address of this machine"
        case errno.EACCES:
            return f"not allowed to use port {listener.port}; ports below 1024 need a privilege"
        case errno.EAFNOSUPPORT:
            return (
                "this process has no network; in systemd's unit add ListenStream= to inferd.socket, or take the drop-in"
                " lan.conf (docs/operations.md)"
            )
    return f"cannot listen: {error.strerror or error}"
