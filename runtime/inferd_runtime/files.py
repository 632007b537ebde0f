"""Files that are written whole or not at all, for what the runtime remembers over restarts."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Replace one file, by way of one beside it that ends in `.tmp`. OSError leaves the old one."""
    fresh = path.with_suffix(".tmp")
    try:
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
