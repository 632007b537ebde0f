"""How much memory a process would give back if it ended."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def private_bytes(pid: int) -> int:
    """Resident memory that a process and its children share with no file and nobody else; 0 for one that is gone.

    What was mapped from files (libraries, mapped weights) does not count: the kernel can drop it.
    """
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    except (OSError, ValueError):
        return 0
    own = (int(resident) - int(shared)) * _PAGE_BYTES
    return own + sum(map(private_bytes, _children(pid)))


def _children(pid: int) -> list[int]:
    """Children of all threads; none where the kernel does not tell."""
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except (OSError, ValueError):
        pass
    return found
