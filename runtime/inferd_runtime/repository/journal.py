"""Loads under way, on disk: a version whose loading killed the daemon is not loaded again just because it restarts.

Native code opens models in this process, and may bring it down. A marker is written before a version is opened and
removed after, however that went. A marker found at the start therefore means that the daemon died meanwhile: the
version stays out until somebody asks for it or its files change. A power cut looks the same, so after a reboot a
version gets a few more chances. A journal that cannot be written never keeps a model from loading.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import msgspec
from msgspec import Struct

from inferd_runtime.files import write_atomically

log = logging.getLogger("inferd.repository")

TRIES_OVER_REBOOTS = 3
_MAX_MARKERS = 10_000


class Marker(Struct, frozen=True):
    """One load that began. `count` loads of this content began and none of them ended."""

    name: str
    version: int
    content: str
    count: int
    boot: str


class LoadJournal:
    """The markers in `folder`, as they were when the daemon started, and those of this daemon's own loads."""

    def __init__(self, folder: Path, *, boot_id: Path = Path("/proc/sys/kernel/random/boot_id")) -> None:
        self._folder = folder
        self._boot = _read_text(boot_id)
        self._left = self._read()

    def refusal(self, name: str, version: int, content: str) -> str:
        """Why this content should not be loaded unasked; empty when it may be."""
        marker = self._left.get((name, version))
        if marker is None or marker.content != content:
            return ""
        if marker.boot != self._boot and marker.count < TRIES_OVER_REBOOTS:
            return ""
        times = "once" if marker.count == 1 else f"{marker.count} times"
        return (
            f"the daemon died while loading this version the last time ({times}); load it explicitly, or change its "
            "files, to try again"
        )

    def begin(self, name: str, version: int, content: str) -> None:
        """A version is about to be opened."""
        left = self._left.get((name, version))
        count = left.count + 1 if left is not None and left.content == content else 1
        marker = Marker(name, version, content, count, self._boot)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(name, version), msgspec.json.encode(marker))
        except OSError as error:
            log.warning("the load journal in %s cannot be written: %s", self._folder, error.strerror)

    def end(self, name: str, version: int) -> None:
        """The opening ended, well or badly, and the daemon is still here."""
        self._left.pop((name, version), None)
        try:
            self._path(name, version).unlink(missing_ok=True)
        except OSError as error:
            log.warning("the load journal in %s cannot be written: %s", self._folder, error.strerror)

    def _path(self, name: str, version: int) -> Path:
        return self._folder / (hashlib.sha256(f"{name}/{version}".encode()).hexdigest()[:32] + ".json")

    def _read(self) -> dict[tuple[str, int], Marker]:
        found: dict[tuple[str, int], Marker] = {}
        try:
            paths = [path for path, _ in zip(self._folder.glob("*.json"), range(_MAX_MARKERS), strict=False)]
        except OSError:
            return found
        for path in paths:
            try:
                marker = msgspec.json.decode(path.read_bytes(), type=Marker)
            except (OSError, msgspec.MsgspecError):
                path.unlink(missing_ok=True)
                continue
            found[marker.name, marker.version] = marker
        return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
