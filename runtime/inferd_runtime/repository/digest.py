"""Telling whether files changed: a cheap fingerprint from stat, a digest over their bytes, and when they lie still.

A version half copied must not be taken. Its files count as settled when their fingerprint stayed equal for a while, or
when the kernel last changed any of them long enough ago (so a daemon that starts takes what lies there at once). An
installer that renames a finished folder or file into place is never seen half-way.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_CHUNK_BYTES = 1 << 20
# Added to the settle time before a change time is believed: clocks of file systems tick coarsely and may lag.
_CHANGE_TIME_MARGIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Name, size, mtime and inode of every file. Equal: nothing changed. `changed_s` is the newest change time."""

    entries: tuple[tuple[str, int, int, int], ...]
    changed_s: float = field(default=0.0, compare=False)

    def bytes_of(self, files: Iterable[Path]) -> int:
        """The size of those of its files that are in `files`."""
        wanted = {str(path) for path in files}
        return sum(size for name, size, _, _ in self.entries if name in wanted and size > 0)


def fingerprint(files: Iterable[Path]) -> Fingerprint:
    """The fingerprint of `files`; one that is not there counts as absent (size -1)."""
    entries: list[tuple[str, int, int, int]] = []
    changed_s = 0.0
    for path in sorted(files):
        try:
            stat = path.stat()
        except OSError:
            entries.append((str(path), -1, 0, 0))
            continue
        entries.append((str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino))
        changed_s = max(changed_s, stat.st_ctime)
    return Fingerprint(tuple(entries), changed_s)


def digest(files: Sequence[Path], base: Path) -> str:
    """SHA-256 over the names (relative to `base`), sizes and bytes of `files`. Raises OSError."""
    total = hashlib.sha256()
    for path in sorted(files):
        one = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                one.update(chunk)
        name = path.relative_to(base).as_posix().encode("utf-8", "surrogateescape")
        total.update(len(name).to_bytes(4, "big") + name + one.digest())
    return total.hexdigest()


class Settling:
    """Remembers since when each thing looks the same. Owner: the loader thread."""

    def __init__(
        self, settle_s: float, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._settle_s = settle_s
        self._clock = clock
        self._wall = wall
        self._seen: dict[Hashable, tuple[Hashable, float]] = {}

    def is_settled(self, key: Hashable, sight: Hashable) -> bool:
        """Whether `key` has looked like `sight` for the settle time, or its files were last changed well before it."""
        now = self._clock()
        last = self._seen.get(key)
        if last is None or last[0] != sight:
            self._seen[key] = last = (sight, now)
        if now - last[1] >= self._settle_s:
            return True
        if not isinstance(sight, Fingerprint) or not sight.entries:
            return False
        age_s = self._wall() - sight.changed_s
        return age_s >= self._settle_s + _CHANGE_TIME_MARGIN_S

    def keep(self, keys: Iterable[Hashable]) -> None:
        """Forget everything but `keys`."""
        wanted = set(keys)
        self._seen = {key: seen for key, seen in self._seen.items() if key in wanted}
