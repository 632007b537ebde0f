"""The table of all regions. Regions belong to whoever registered them: nobody else can use, see or remove them.

Used on the event loop's thread. Opening an object is no more than a look into a file system in memory.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from inferd.protocol import Request
from inferd_agent.config import SharedMemory
from inferd_agent.errors import Forbidden, NoSuchRegion, RegionExists
from inferd_agent.memory.objects import SHARED_MEMORY, Opened, Origin, check_memfd, open_key
from inferd_agent.memory.region import Region
from inferd_agent.memory.use import Use
from inferd_runtime import InvalidRequest, Overloaded, Unsupported

_MAX_NAME_CHARS = 255
# One caller has this part of all regions, and of all bytes, at most: there is something left for the others.
_SHARE = 2


class Regions:
    """All regions, within the configured limits. `folder` is where keys are looked for."""

    def __init__(self, limits: SharedMemory, *, folder: Path = SHARED_MEMORY) -> None:
        self._limits = limits
        self._folder = folder
        self._regions: dict[tuple[str, str], Region] = {}
        self._nbytes = 0

    @property
    def takes_keys(self) -> bool:
        """Whether callers may name objects by key."""
        return self._limits.system

    def __len__(self) -> int:
        return len(self._regions)

    def register_key(self, owner: str, origin: Origin, name: str, key: str, offset: int, nbytes: int) -> None:
        """Open an object for its owner. Raises Unsupported, Forbidden, RegionExists, Overloaded, InvalidRequest."""
        if not self._limits.system:
            raise Unsupported(
                "objects of shared memory are not taken by their keys here: shared_memory.system = true allows it"
            )
        if not origin.is_local:
            raise Forbidden(f"region {name!r}: only callers on this machine, by Unix socket or loopback, share memory")
        if not name or len(name) > _MAX_NAME_CHARS or not name.isprintable():
            raise InvalidRequest(f"a region's name has 1 to {_MAX_NAME_CHARS} printable characters, got {name[:300]!r}")
        if (owner, name) in self._regions:
            raise RegionExists(f"region '{name}' is registered already; unregister it first")
        self._check_room(owner, name, nbytes)
        opened = open_key(key, origin, folder=self._folder, own_uid=os.geteuid())
        self._add(owner, opened, name, key, offset, nbytes)

    def register_fd(self, owner: str, fd: int, nbytes: int, *, uid: int | None = None) -> str:
        """Take over a sealed memfd, also where it is refused; the name that it has from now on, which nobody guesses.

        `uid` is the user who handed it over: tensors are seen in place only of those who have power over the daemon
        anyway, its own user and root. Raises InvalidRequest, Overloaded.
        """
        name = f"memfd-{secrets.token_urlsafe(16)}"
        try:
            self._check_room(owner, name, nbytes)
            opened = check_memfd(fd)
        except BaseException:
            os.close(fd)
            raise
        self._add(owner, opened, name, "", 0, nbytes, is_seen=uid in (0, os.geteuid()))
        return name

    def unregister(self, owner: str, name: str | None = None) -> None:
        """Forget one region, or all that were registered by key; unknown ones are no error. Requests that use one
        finish."""
        if name is not None:
            self._forget((owner, name))
            return
        for place, region in tuple(self._regions.items()):
            if place[0] == owner and region.key:
                self._forget(place)

    def status(self, owner: str, name: str | None = None) -> list[Region]:
        """One region, or all that were registered by key. Raises NoSuchRegion."""
        if name is not None:
            return [self._find(owner, name)]
        return [region for (whose, _), region in self._regions.items() if whose == owner and region.key]

    def use(self, owner: str, request: Request) -> Use:
        """The regions that a request reads and writes, held until the use is closed; bounds have been checked.

        Raises NoSuchRegion, InvalidRequest.
        """
        names = {each.place.region for each in request.references}
        names.update(output.place.region for output in request.outputs if output.place is not None)
        return Use(request, {name: self._find(owner, name) for name in names})

    def close(self) -> None:
        """Forget all; idempotent."""
        for place in tuple(self._regions):
            self._forget(place)

    def _find(self, owner: str, name: str) -> Region:
        region = self._regions.get((owner, name))
        if region is None:
            raise NoSuchRegion(f"there is no region {name[:300]!r}; register it first")
        return region

    def _check_room(self, owner: str, name: str, nbytes: int) -> None:
        limits = self._limits
        share = max(limits.max_bytes // _SHARE, 1)
        if nbytes < 1:
            raise InvalidRequest(f"region '{name}': byte_size must be 1 or more, got {nbytes}")
        if nbytes > share:
            raise InvalidRequest(f"region '{name}' has {nbytes} bytes, one caller's regions together at most {share}")
        own = [region.nbytes for (whose, _), region in self._regions.items() if whose == owner]
        for whose, count, taken, most_regions, most_bytes in (
            ("your", len(own), sum(own), max(limits.max_regions // _SHARE, 1), share),
            ("all", len(self._regions), self._nbytes, limits.max_regions, limits.max_bytes),
        ):
            if count >= most_regions:
                raise Overloaded(f"region '{name}': {whose} {count} regions are registered, no more are taken")
            if nbytes > most_bytes - taken:
                raise Overloaded(
                    f"region '{name}': {taken} bytes of {whose} regions are registered, "
                    f"{nbytes} more would pass {most_bytes}"
                )

    def _add(
        self, owner: str, opened: Opened, name: str, key: str, offset: int, nbytes: int, *, is_seen: bool = False
    ) -> None:
        try:
            if offset < 0 or offset > opened.size or nbytes > opened.size - offset:
                raise InvalidRequest(
                    f"region '{name}': its object has {opened.size} bytes; {nbytes} from {offset} on are not in it"
                )
            region = Region(name, opened, offset, nbytes, key=key, is_seen=is_seen)
        except BaseException:
            os.close(opened.fd)
            raise
        self._regions[owner, name] = region
        self._nbytes += nbytes

    def _forget(self, place: tuple[str, str]) -> None:
        region = self._regions.pop(place, None)
        if region is not None:
            self._nbytes -= region.nbytes
            region.release()
