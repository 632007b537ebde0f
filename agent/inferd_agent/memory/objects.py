"""What stands behind a region: an object under /dev/shm that its caller names, or a memfd that was handed over.

A key is one name in one folder and follows no link. An object is opened only for callers who could open it themselves:
by the daemon's rights nobody gets at more than by his own.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import mmap
import os
import stat
from pathlib import Path
from typing import NamedTuple

from inferd_agent.errors import Forbidden
from inferd_runtime import InvalidRequest

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  that is where shm_open makes its objects
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # a pipe or a terminal must do no harm either
_FOR_ALL = stat.S_IROTH | stat.S_IWOTH


class Origin(NamedTuple):
    """Where a caller sits: whether on this machine, and as which user, None where that is not known."""

    is_local: bool
    uid: int | None = None

    @classmethod
    def of_address(cls, host: str) -> Origin:
        """Of a caller over TCP."""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return cls(False)
        return cls((getattr(address, "ipv4_mapped", None) or address).is_loopback)


class Opened(NamedTuple):
    """A descriptor, whose owner closes it, and what it is good for."""

    fd: int
    size: int
    is_writable: bool


def open_key(key: str, origin: Origin, *, folder: Path, own_uid: int) -> Opened:
    """Open the object of a key. Raises InvalidRequest, Forbidden; both name the key."""
    path = folder / _checked(key)
    try:
        opened = _open(path)
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise InvalidRequest(f"key {key!r}: cannot be opened under {folder}: {reason}") from None
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidRequest(f"key {key!r}: this is no shared memory object")
        _check_owner(key, found, origin, own_uid)
        return Opened(opened, found.st_size, _is_writable(opened))
    except BaseException:
        os.close(opened)
        raise


def _checked(key: str) -> str:
    name = key.removeprefix("/")
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise InvalidRequest(
            f"key {key[:300]!r}: a key is one name under {SHARED_MEMORY}, with or without a '/' before it"
        )
    try:
        size = len(name.encode())
    except UnicodeError:
        raise InvalidRequest("the key is not UTF-8") from None
    if size > 255:
        raise InvalidRequest(f"the key has {size} bytes, names have 255 at most")
    return name


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | _FLAGS)
    except PermissionError:
        return os.open(path, os.O_RDONLY | _FLAGS)


def _check_owner(key: str, found: os.stat_result, origin: Origin, own_uid: int) -> None:
    """Root may all. Of a caller who is not known by his process only so much is known: he may what everybody may, and
    whom the daemon's own user let in may use that user's objects."""
    if origin.uid is None:
        is_allowed = found.st_uid == own_uid or found.st_mode & _FOR_ALL == _FOR_ALL
    else:
        is_allowed = origin.uid in (0, found.st_uid)
    if not is_allowed:
        raise Forbidden(f"key {key!r}: the object belongs to another user")


def check_memfd(fd: int) -> Opened:
    """What a memfd that was handed over is good for; it is not closed here. Raises InvalidRequest."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        raise InvalidRequest("this is no memfd: make one by memfd_create with MFD_ALLOW_SEALING") from None
    if not seals & fcntl.F_SEAL_SHRINK:
        raise InvalidRequest("the memfd could shrink: seal it with fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK)")
    if os.fstatvfs(fd).f_bsize != mmap.PAGESIZE:
        raise InvalidRequest("the memfd has huge pages, which are not taken here: leave out MFD_HUGETLB")
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        raise InvalidRequest("the memfd was opened for writing alone")
    return Opened(fd, os.fstat(fd).st_size, _is_writable(fd))


def _is_writable(fd: int) -> bool:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
