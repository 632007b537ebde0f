"""Files that are written whole or not at all: temporary file, fsync, rename, and the folder's fsync.

A full disk, a kill or a power cut leaves the old files as they were. When root writes for a service user, the new file
gets the owner of the old one (or of its folder), so that the daemon can still read what an administrator changed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path


def write_atomically(path: Path, data: bytes, *, mode: int) -> None:
    """Replace one file; OSError leaves the old one."""
    write_all_atomically({path: (data, mode)})


def write_all_atomically(contents: Mapping[Path, tuple[bytes, int]]) -> None:
    """Replace several files, the renames only after every byte of all of them is on the disk."""
    written: dict[Path, Path] = {}
    try:
        for path, (data, mode) in contents.items():
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            written[temporary] = path
            _write(temporary, data, mode, owner_like=path)
        for temporary, path in written.items():
            temporary.replace(path)
    finally:
        for temporary in written:
            temporary.unlink(missing_ok=True)
    for folder in {path.parent for path in contents}:
        _sync_folder(folder)


def make_private_folder(path: Path, mode: int = 0o700) -> None:
    """Create a folder and its parents; an existing one keeps its mode."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=mode, exist_ok=True)
    with contextlib.suppress(OSError):
        _hand_over(path, path.parent)


def _write(path: Path, data: bytes, mode: int, *, owner_like: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode & 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        _hand_over(handle, owner_like if owner_like.exists() else owner_like.parent)
        os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)


def _hand_over(target: int | Path, like: Path) -> None:
    if os.geteuid() == 0:
        status = like.stat()
        os.chown(target, status.st_uid, status.st_gid)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
