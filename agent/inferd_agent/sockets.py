"""Bound sockets from listeners, whether Unix, TCP or handed over by systemd, and who is at the other end of a Unix one.

Invariants: a Unix socket is never reachable with a wider mode than asked for; only a dead socket that no other daemon
is about to serve is removed, and nothing that is not a socket; at close only what is still ours is unlinked. A lock
file beside the socket, held as long as the socket, makes two daemons that start at once agree.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import struct
from asyncio.trsock import TransportSocket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from inferd_agent.config import Listener, is_loopback
from inferd_agent.errors import ConfigError

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
    """A listener with its listening sockets: several where a name has several addresses."""

    listener: Listener
    sockets: tuple[socket.socket, ...]
    is_inherited: bool = False
    _inode: tuple[int, int] | None = field(default=None, repr=False)
    _lock: int | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The listener's URL, with the port the kernel chose where 0 was asked for."""
        if self.listener.kind == "unix" or self.listener.port:
            return self.listener.url
        port = self.sockets[0].getsockname()[1]
        return Listener("tcp", "", self.listener.host, port, self.listener.tls, self.listener.insecure).url

    def close(self) -> None:
        """Close the sockets; remove the path if it is still ours. Callable twice."""
        if self._inode is not None and self._lock is not None and self.sockets[0].fileno() >= 0:
            _unlink_if_same(Path(self.listener.path), self._inode)
            _release(Path(self.listener.path + ".lock"), self._lock)
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
    gid = _group_id(group) if group else None
    try:
        path.parent.mkdir(mode=0o755 if mode & 0o077 else 0o700, parents=True, exist_ok=True)
        lock = _lock(path)
    except OSError as error:
        raise ConfigError(f"{listener}: cannot use {path.parent}: {error.strerror}") from error
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear_stale(path)
        # The mode of the socket's own inode limits that of the file which bind creates, so there is no moment with a
        # wider one and no process-wide umask to change.
        os.fchmod(sock.fileno(), 0o600 & mode)
        sock.bind(str(path))
        if gid is not None:
            os.chown(path, -1, gid)
        path.chmod(mode)
        sock.setblocking(False)
        sock.listen(BACKLOG)
        status = path.stat()
    except OSError as error:
        sock.close()
        _release(Path(f"{path}.lock"), lock)
        raise ConfigError(f"{listener}: cannot listen: {error.strerror}") from error
    except ConfigError:
        sock.close()
        os.close(lock)  # the path is another's, and so may be the lock file
        raise
    return Bound(listener, (sock,), _inode=(status.st_dev, status.st_ino), _lock=lock)


def _lock(path: Path) -> int:
    """Hold the lock beside the socket. A lock file that was removed meanwhile counts for nothing: try again."""
    name = f"{path}.lock"
    while True:
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            here, there = os.fstat(handle), os.stat(name)  # noqa: PTH116
            if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                return handle
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(handle)
            raise ConfigError(f"unix:{path}: another daemon listens here, or is about to") from None
        os.close(handle)


def _release(path: Path, handle: int) -> None:
    """Remove the lock file while it is still held, then let go."""
    with contextlib.suppress(OSError):
        path.unlink()
    os.close(handle)


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody serves any more. Called with the lock held."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ConfigError(f"unix:{path}: there is something that is not a socket; it was left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog answers EAGAIN: alive
        outcome = probe.connect_ex(str(path))
    if outcome not in (errno.ECONNREFUSED, errno.ENOENT):
        raise ConfigError(
            f"unix:{path}: another daemon listens here ({os.strerror(outcome) if outcome else 'it answers'})"
        )
    _unlink_if_same(path, (status.st_dev, status.st_ino))


def _unlink_if_same(path: Path, inode: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        status = path.lstat()
        if (status.st_dev, status.st_ino) == inode:
            path.unlink()


def _group_id(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"server.socket_group: there is no group {group!r} on this machine") from None


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
