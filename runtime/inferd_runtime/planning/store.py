"""Measured plans on disk: one JSON file for each key, so that a restart need not measure again.

What lies there is believed only as far as it is what it should be. What cannot be read is not there, and what cannot be
written is kept in memory, to be measured again after a restart: a cache is never a reason to fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
from pathlib import Path

import msgspec
from msgspec import Struct

from inferd_runtime.files import write_atomically
from inferd_runtime.planning.evidence import Evidence
from inferd_runtime.planning.plan import Ground, Wishes

# To be raised whenever figures of an older planner should not be used any more.
PLANNER_VERSION = 1
MAX_FILES = 256
MAX_FILE_BYTES = 4 << 20

log = logging.getLogger("inferd.planning")


class _Basis(Struct, frozen=True):
    """All that figures depend on: whatever differs here must be measured anew."""

    planner: int
    digest: str
    machine: str
    cores: int
    engines: list[tuple[str, str]]
    missing: list[str]
    cuda_refusal: str
    settings: list[str]
    wishes: Wishes


def plan_key(ground: Ground, wishes: Wishes, digest: str) -> str:
    """What a measured plan is kept under. `digest` stands for the content of the model's files."""
    basis = _Basis(
        planner=PLANNER_VERSION,
        digest=digest,
        machine=ground.machine_digest,
        cores=ground.cores,
        engines=sorted((name, engine.version) for name, engine in ground.engines.items()),
        missing=sorted(ground.missing),
        cuda_refusal=ground.cuda_refusal,
        settings=[ground.engine, ground.inline, ground.objective],
        wishes=wishes,
    )
    return hashlib.sha256(msgspec.json.encode(basis)).hexdigest()


class PlanStore:
    """The folder of measured plans; safe from any thread."""

    def __init__(self, folder: Path, *, max_files: int = MAX_FILES) -> None:
        self._folder = folder
        self._max_files = max_files
        self._unwritten: dict[str, Evidence] = {}  # else it would be measured again at once, and again

    def load(self, key: str) -> Evidence | None:
        """What was measured under `key`; None where nothing was, or where the file is not what it should be."""
        unwritten = self._unwritten.get(key)
        if unwritten is not None:
            return unwritten
        path = self._path(key)
        try:
            evidence = msgspec.json.decode(_read(path), type=Evidence)
            if evidence.key != key:
                raise ValueError("it was measured for something else")
            os.utime(path)  # what is used stays
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
            log.warning("the measured plan in %s is left aside: %s", path, _told(error))
            return None
        return evidence

    def save(self, evidence: Evidence) -> None:
        """Keep `evidence`, and drop what was used least recently."""
        path = self._path(evidence.key)
        self._unwritten.pop(evidence.key, None)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, msgspec.json.encode(evidence))
            self._prune()
        except OSError as error:
            log.warning("the measured plan cannot be kept in %s: %s", self._folder, _told(error))
            self._remember(evidence)

    def _remember(self, evidence: Evidence) -> None:
        self._unwritten[evidence.key] = evidence
        if len(self._unwritten) > self._max_files:
            del self._unwritten[next(iter(self._unwritten))]

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"

    def _prune(self) -> None:
        files = sorted(
            (entry.stat(follow_symlinks=False).st_mtime_ns, entry.path) for entry in os.scandir(self._folder)
        )
        for _, path in files[: -self._max_files]:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108 - scandir gives text


def _read(path: Path) -> bytes:
    # Opening a pipe would wait for its other end.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    return data


def _told(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
