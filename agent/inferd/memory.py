"""Memory that a client shares with its daemon: tensors that lie in it are told by their place instead of sent.

The memory is a memfd that cannot shrink, so neither side can pull it from under the other. A mapping lives as long as
an array in it: arrays stay good when the memory is closed, they are just no longer shared. Linux only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import math
import mmap
import os
import socket
import threading
import weakref
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import DTypeLike

from inferd.errors import BadResponse, ConnectionFailed, InvalidRequest, Unsupported, error_from
from inferd.protocol import ProtocolError, RegionRef, datatype_of
from inferd.protocol.datatypes import DATATYPES, Array
from inferd.retry import Deadline

# Where arrays begin: at a cache line.
ALIGN_BYTES = 64
_MAX_LINE_BYTES = 64 << 10
_NOEXEC_SEAL = 0x0008  # MFD_NOEXEC_SEAL, of newer kernels


@dataclass(slots=True)
class _Region:
    """What the daemon knows by `name`: `nbytes` from the address `start` on in this process."""

    name: str
    start: int
    nbytes: int
    is_closed: bool = False


class Memories:
    """What one client shares, by address. For any thread."""

    def __init__(self) -> None:
        self._regions: dict[int, _Region] = {}
        self._numbers = itertools.count()

    def place(self, array: Array) -> RegionRef | None:
        """Where in shared memory an array lies in one piece, None where it does not. InvalidRequest: it is closed."""
        if not self._regions or not array.nbytes or not array.flags.c_contiguous or array.dtype.hasobject:
            return None
        begin = array.__array_interface__["data"][0]
        for region in tuple(self._regions.values()):
            offset = begin - region.start
            if 0 <= offset <= region.nbytes - array.nbytes:
                if region.is_closed:
                    raise InvalidRequest("the array lies in shared memory that was closed: copy it, or share anew")
                return RegionRef(region.name, offset, array.nbytes)
        return None

    def add(self, region: _Region, mapping: mmap.mmap) -> None:
        """Know a region for as long as its mapping is there."""
        number = next(self._numbers)
        self._regions[number] = region
        weakref.finalize(mapping, self._regions.pop, number, None).atexit = False


class Memory:
    """Memory shared with a daemon; made by `Client.share`, and closed by `close` or at the end of a `with`.

    `empty` makes arrays in it. Any thread may, and fill them again and again; make the memory after a fork.
    """

    def __init__(self, region: _Region, mapping: mmap.mmap, connection: socket.socket) -> None:
        self._region = region
        self._mapping = mapping
        self._lock = threading.Lock()
        self._used = 0
        self._end = weakref.finalize(self, _end, region, connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._region.is_closed else f"{self.free_bytes} free"
        return f"<Memory of {self.nbytes} bytes, {state}>"

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self._region.nbytes

    @property
    def free_bytes(self) -> int:
        """What is left for further arrays."""
        return self.nbytes - self._used

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """A new array in this memory, its values as yet anything. Raises InvalidRequest: closed, full, or no numbers.

        What an array takes is not given back before the memory is closed.
        """
        if self._region.is_closed:
            raise InvalidRequest("this memory was closed")
        kind = _checked(np.dtype(dtype))
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if min(shape, default=0) < 0:
            raise InvalidRequest(f"a shape has no negative dimension, {list(shape)} has")
        nbytes = math.prod(shape) * kind.itemsize
        with self._lock:
            if nbytes > self.free_bytes:
                raise InvalidRequest(f"{nbytes} bytes do not fit, {self.free_bytes} of {self.nbytes} are free")
            begin = self._used
            self._used = min(begin + nbytes + -nbytes % ALIGN_BYTES, self.nbytes)
        return np.ndarray(shape, kind, self._mapping, begin)

    def close(self) -> None:
        """Share it no longer; idempotent. Arrays in it stay what they are."""
        self._end()


def _end(region: _Region, connection: socket.socket) -> None:
    region.is_closed = True
    with contextlib.suppress(OSError):  # the daemon may have ended it
        connection.shutdown(socket.SHUT_RDWR)  # which counts in forked processes, too
    connection.close()


def _checked(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype as the protocol has it."""
    try:
        name = datatype_of(dtype)
    except ProtocolError as error:
        raise InvalidRequest(str(error)) from None
    if name == "BYTES":
        raise InvalidRequest("arrays of text or bytes cannot lie in shared memory")
    return DATATYPES[name]


class _Answer(msgspec.Struct):
    name: str = ""
    error: str = ""
    status: int = 400


_ANSWER = msgspec.json.Decoder(_Answer)


def share(path: str, token: str | None, nbytes: int, memories: Memories, deadline: Deadline) -> Memory:
    """Make memory and hand it over at a daemon's socket. Blocks, within the deadline.

    Raises InvalidRequest, ConnectionFailed, DeadlineExceeded, Unsupported, and what the daemon refuses with.
    """
    fd = _make(nbytes)
    try:
        connection = _connect(path, deadline)
        try:
            name = _hand_over(connection, fd, token, nbytes, deadline)
            mapping = _map(fd, nbytes)
        except BaseException:
            connection.close()
            raise
    finally:
        os.close(fd)
    region = _Region(name, np.frombuffer(mapping, np.uint8).ctypes.data, nbytes)
    memories.add(region, mapping)
    return Memory(region, mapping, connection)


def _make(nbytes: int) -> int:
    """A sealed memfd of this size, none of it there yet."""
    if nbytes < 1:
        raise InvalidRequest(f"cannot share {nbytes} bytes")
    if not hasattr(os, "memfd_create"):
        raise Unsupported("shared memory needs Linux")
    fd = _memfd()
    try:
        os.ftruncate(fd, nbytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except (OSError, OverflowError) as error:
        os.close(fd)
        raise _no_memory(nbytes, error) from error
    return fd


def _no_memory(nbytes: int, error: Exception) -> InvalidRequest:
    return InvalidRequest(f"cannot get {nbytes} bytes to share: {getattr(error, 'strerror', None) or error}")


def _memfd() -> int:
    try:
        return os.memfd_create("inferd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("inferd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _map(fd: int, nbytes: int) -> mmap.mmap:
    """The mapping of memory that the daemon has taken, and so found bearable, with all of it there: what is not would
    be missed later, by a signal."""
    try:
        os.posix_fallocate(fd, 0, nbytes)
        return mmap.mmap(fd, nbytes)
    except (OSError, ValueError) as error:
        raise _no_memory(nbytes, error) from error


def _connect(path: str, deadline: Deadline) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(deadline.left_s())
        connection.connect(path)
    except TimeoutError:
        connection.close()
        raise deadline.exceeded() from None
    except OSError as error:
        connection.close()
        raise ConnectionFailed(f"cannot hand memory over at {path}: {error.strerror or error}") from error
    return connection


def _hand_over(connection: socket.socket, fd: int, token: str | None, nbytes: int, deadline: Deadline) -> str:
    """The name that the daemon gives the memory."""
    offer = {"byte_size": nbytes, **({"token": token.strip()} if token else {})}
    try:
        connection.settimeout(deadline.left_s())
        with contextlib.suppress(BrokenPipeError):  # it has answered already, with a refusal
            socket.send_fds(connection, [msgspec.json.encode(offer) + b"\n"], [fd])
        line = _read_line(connection, deadline)
    except TimeoutError:
        raise deadline.exceeded() from None
    except OSError as error:
        raise ConnectionFailed(f"handing memory over broke off: {error}") from error
    try:
        answer = _ANSWER.decode(line)
    except (msgspec.MsgspecError, UnicodeError):
        raise BadResponse("what came back for the memory is no answer of inferd's") from None
    if answer.error or not answer.name:
        raise error_from(answer.status, {}, line)
    return answer.name


def _read_line(connection: socket.socket, deadline: Deadline) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _MAX_LINE_BYTES:
        connection.settimeout(deadline.left_s())
        data = connection.recv(_MAX_LINE_BYTES)
        if not data:
            raise ConnectionFailed("the daemon closed the connection without taking the memory")
        line += data
    return line
