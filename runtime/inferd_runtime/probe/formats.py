"""The small text formats that the kernel writes everywhere: CPU lists, sizes, numbers, uevents, key-value blocks.

Pure functions over text. Garbage gives an empty or None result, never an exception.
"""

from __future__ import annotations

import re

# No kernel numbers CPUs higher; a list that claims more is garbage and must not cost memory.
MAX_CPUS = 65536
_SIZE = re.compile(r"(\d{1,18})\s*([KMGT]?)i?B?", re.IGNORECASE | re.ASCII)
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?(?::(\d{1,6})/(\d{1,6}))?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,24}", re.ASCII)


def parse_cpu_list(text: str | None) -> frozenset[int]:
    """The CPUs of "0-3,8" or "0-15:2/4"; parts that make no sense are passed over."""
    found: set[int] = set()
    for part in (text or "").replace("\n", ",").split(","):
        match = _RANGE.fullmatch(part.strip(" \t\r\0"))
        if match is None:
            continue
        first = int(match[1])
        last = min(int(match[2] or first), MAX_CPUS - 1)
        used, group = int(match[3] or 1), max(1, int(match[4] or 1))
        found.update(cpu for cpu in range(first, last + 1) if (cpu - first) % group < used)
    return frozenset(found)


def show_cpu_list(cpus: frozenset[int] | set[int]) -> str:
    """The shortest list of ranges: "0-3,8"."""
    parts: list[str] = []
    ordered = sorted(cpus)
    start = 0
    for i in range(1, len(ordered) + 1):
        if i == len(ordered) or ordered[i] != ordered[i - 1] + 1:
            first, last = ordered[start], ordered[i - 1]
            parts.append(str(first) if first == last else f"{first}-{last}")
            start = i
    return ",".join(parts)


def parse_int(text: str | None) -> int | None:
    """A decimal number with blanks around it, or None."""
    match = _INTEGER.fullmatch((text or "").strip(" \t\r\n\0"))
    return int(match[0]) if match else None


def parse_size_bytes(text: str | None) -> int | None:
    """ "48K", "32768 kB", "1.5M" is None: the kernel writes whole numbers with a binary unit."""
    match = _SIZE.fullmatch((text or "").strip(" \t\r\n\0"))
    return int(match[1]) << _SHIFTS[match[2].upper()] if match else None


def parse_pairs(text: str | None, separator: str) -> dict[str, str]:
    """Lines of "key SEPARATOR value"; the first of equal keys wins, lines without the separator are passed over."""
    pairs: dict[str, str] = {}
    for line in (text or "").splitlines():
        key, found, value = line.partition(separator)
        if found and key.strip():
            pairs.setdefault(key.strip(), value.strip(" \t\r\0"))
    return pairs
