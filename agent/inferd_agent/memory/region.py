"""One region: a stretch of an object, read and written by system calls, which survive that the object is cut.

Owner: the table and every request that uses it count as users; the descriptor is closed when the last of them lets go.
`hold` and `release` and the copying may be done on any thread.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from inferd.protocol import RegionRef
from inferd_agent.errors import NoSuchRegion
from inferd_agent.memory.objects import Opened
from inferd_runtime import InvalidRequest


class Region:
    """`nbytes` bytes of an object from `offset` on. The descriptor is its own from here on.

    `is_seen`: a part of it may be seen where it lies, since the object cannot shrink and its owner is trusted not to
    change it meanwhile.
    """

    def __init__(self, name: str, opened: Opened, offset: int, nbytes: int, *, key: str = "", is_seen: bool) -> None:
        self.name = name
        self.key = key
        self.offset = offset
        self.nbytes = nbytes
        self.is_writable = opened.is_writable
        self._fd = opened.fd
        self._users = 1
        self._lock = threading.Lock()
        self._map = mmap.mmap(self._fd, nbytes, mmap.MAP_SHARED, mmap.PROT_READ) if is_seen else None

    def hold(self) -> None:
        """One user more. Raises NoSuchRegion where the last one has gone."""
        with self._lock:
            if not self._users:
                raise NoSuchRegion(f"region '{self.name}' was unregistered meanwhile")
            self._users += 1

    def release(self) -> None:
        """One user less."""
        with self._lock:
            self._users -= 1
            if not self._users:
                os.close(self._fd)
                self._map = None  # unmapped when no array looks at it any more

    @contextmanager
    def _held(self) -> Iterator[None]:
        self.hold()
        try:
            yield
        finally:
            self.release()

    def check(self, place: RegionRef) -> None:
        """Raise InvalidRequest unless a place is within the region."""
        if place.offset > self.nbytes or place.nbytes > self.nbytes - place.offset:
            raise InvalidRequest(
                f"region '{self.name}' has {self.nbytes} bytes; {place.nbytes} from {place.offset} on are not in it"
            )

    def see(self, place: RegionRef) -> memoryview | None:
        """The bytes of a checked place where they lie, read-only; None where they have to be copied."""
        whole = self._map
        return memoryview(whole)[place.offset : place.offset + place.nbytes] if whole is not None else None

    def read(self, place: RegionRef, room: memoryview) -> None:
        """Copy a checked place into `room`, which has its size. Raises InvalidRequest where the object was cut."""
        at = self.offset + place.offset
        with self._held():
            while room:
                count = os.preadv(self._fd, [room], at)
                if not count:
                    raise self._cut(at)
                at += count
                room = room[count:]

    def write(self, place: RegionRef, data: bytes | memoryview) -> None:
        """Copy `data`, which is not larger, into a checked place. Raises InvalidRequest."""
        at = self.offset + place.offset
        left = memoryview(data)
        with self._held():
            # Never made larger by us: its owner has cut it, or will wonder.
            if os.fstat(self._fd).st_size < at + len(left):
                raise self._cut(at)
            try:
                while left:
                    count = os.pwrite(self._fd, left, at)
                    at += count
                    left = left[count:]
            except OSError as error:
                raise InvalidRequest(f"region '{self.name}' cannot be written: {error.strerror}") from None

    def _cut(self, at: int) -> InvalidRequest:
        return InvalidRequest(
            f"region '{self.name}': its object was cut after it was registered, what is wanted at byte {at} is gone"
        )
