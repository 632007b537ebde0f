"""The path of a Unix socket: claimed for us alone, opened to those who may come, left as it was found.

Invariants: only a dead socket that no other daemon is about to serve is removed, and nothing that is not a socket; on
leaving only what is still ours is unlinked. A lock file beside the socket, held as long as the socket, makes two
daemons that start at once agree.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inferd_agent.config import Listener
from inferd_agent.errors import ConfigError


@dataclass(slots=True)
class Claim:
    """A path that is ours as long as the socket there is, which its inode tells, with the lock beside it."""

    path: Path
    inode: tuple[int, int]
    lock: int
    is_held: bool = True

    def leave(self) -> None:
        """Remove what is still ours, once."""
        if self.is_held:
            self.is_held = False
            _unlink_if_same(self.path, self.inode)
            _release(Path(f"{self.path}.lock"), self.lock)


def open_to(path: Path, mode: int, gid: int) -> None:
    """Let in those who may come."""
    if gid >= 0:
        os.chown(path, -1, gid)
    path.chmod(mode)


def inode_of(path: Path) -> tuple[int, int]:
    """What tells the file that is there now from any later one."""
    status = path.lstat()
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def claimed(listener: Listener, mode: int) -> Iterator[int]:
    """The path, free and locked; the lock is let go where what follows fails."""
    path = Path(listener.path)
    try:
        path.parent.mkdir(mode=0o755 if mode & 0o077 else 0o700, parents=True, exist_ok=True)
        lock = _lock(path)
    except OSError as error:
        raise ConfigError(f"{listener}: cannot use {path.parent}: {error.strerror}") from error
    try:
        _clear_stale(path)
    except BaseException:
        os.close(lock)  # the path is another's, and so may be the lock file
        raise
    try:
        yield lock
    except BaseException:
        _release(Path(f"{path}.lock"), lock)
        raise


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
            raise ConfigError(
                f"unix:{path}: another daemon listens here, or is about to; stop it, or listen elsewhere"
            ) from None
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
        raise ConfigError(f"unix:{path}: there is something that is not a socket; remove it, or listen elsewhere")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog answers EAGAIN: alive
        outcome = probe.connect_ex(str(path))
    if outcome not in (errno.ECONNREFUSED, errno.ENOENT):
        how = os.strerror(outcome) if outcome else "it answers"
        raise ConfigError(f"unix:{path}: another daemon listens here ({how}); stop it, or listen elsewhere")
    _unlink_if_same(path, (status.st_dev, status.st_ino))


def _unlink_if_same(path: Path, inode: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        status = path.lstat()
        if (status.st_dev, status.st_ino) == inode:
            path.unlink()


def group_id(group: str) -> int:
    """The number of the group that sockets are to have. Raises ConfigError."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"server.socket_group: there is no group {group!r} on this machine") from None
