"""Reads files, folders and device nodes below a root; the only part of the probe that touches the outside.

Every path is absolute as the machine sees it ("/proc/cpuinfo") and is looked up below the root. What is missing or
forbidden reads as None or empty: absence is never a failure. What the text means is the parsers' business.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

CHUNK_BYTES = 64 << 10
MAX_CHUNKS = 64
# Opening these wakes the GPU, which may take seconds; the permission bits are asked instead.
_COSTLY_TO_OPEN = re.compile(r"/dev/nvidia\d+$")


@dataclass(frozen=True, slots=True)
class Node:
    """A device node: its owner and mode, and the errno that opening it for reading and writing gave (0: it opened)."""

    mode: int
    uid: int
    gid: int
    error: int = 0


class Reader:
    """Looks below `root`. Never raises for anything the file system may answer."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def text(self, path: str) -> str | None:
        """The file's text, or None. Bounded, and bytes that are no UTF-8 become replacement characters."""
        try:
            with self._below(path).open("rb") as file:
                # In chunks, for /proc/sys answers a read of megabytes with ENOMEM, however short the file.
                chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
                return b"".join(islice(chunks, MAX_CHUNKS)).decode("utf-8", "replace")
        except (OSError, ValueError):
            return None

    def line(self, path: str) -> str:
        """The file's text without the blanks and NULs around it; "" where there is none."""
        return (self.text(path) or "").strip(" \t\r\n\0")

    def names(self, path: str, pattern: str) -> tuple[str, ...]:
        """What the folder holds, names that fully match `pattern` only, sorted."""
        try:
            names = [entry.name for entry in self._below(path).iterdir()]
        except (OSError, ValueError):
            return ()
        return tuple(sorted(name for name in names if re.fullmatch(pattern, name)))

    def node(self, path: str) -> Node | None:
        """The device node and whether it opens; None where there is none."""
        below = self._below(path)
        try:
            status = below.stat()
        except (OSError, ValueError):
            return None
        error = _ask(below) if _COSTLY_TO_OPEN.search(path) else _open(below)
        return Node(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, error)

    def _below(self, path: str) -> Path:
        return self._root / path.lstrip("/")


def _open(path: Path) -> int:
    """The errno of opening. Only this tells the truth in a container, whose device rules no permission bit shows."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _ask(path: Path) -> int:
    return 0 if os.access(path, os.R_OK | os.W_OK, effective_ids=True) else errno.EACCES
