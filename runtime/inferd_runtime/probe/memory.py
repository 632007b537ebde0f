"""Caches and main memory: sysfs cache folders, /proc/meminfo, and the memory limit of our control groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from inferd_runtime.probe.cgroup import Cgroups, memory_used_bytes
from inferd_runtime.probe.formats import parse_cpu_list, parse_int, parse_pairs, parse_size_bytes
from inferd_runtime.probe.machine import Cache, Memory
from inferd_runtime.probe.reader import Reader


def parse_meminfo(text: str | None) -> tuple[int, int]:
    """(total, available) in bytes; kernels before 3.14 do not know "available", free plus cached stands in."""
    sizes = {key: parse_size_bytes(value) or 0 for key, value in parse_pairs(text, ":").items()}
    total = sizes.get("MemTotal", 0)
    available = sizes.get("MemAvailable", sizes.get("MemFree", 0) + sizes.get("Cached", 0))
    return total, min(total, available)


def read_memory(reader: Reader, cgroups: Cgroups) -> Memory:
    """What there is, what we may use of it, and what of that is free."""
    total, available = parse_meminfo(reader.text("/proc/meminfo"))
    limit = cgroups.memory_limit()
    if limit is None or (total and limit.value >= total):
        return Memory(total, total, available)
    room = max(0, int(limit.value) - memory_used_bytes(reader, limit))
    return Memory(total, int(limit.value), min(available, room) if total else room, limit)


def read_caches(reader: Reader, cpus: Iterable[int]) -> tuple[Cache, ...]:
    """All caches, small levels first; a cache that several CPUs share counts once."""
    instances: set[tuple[int, str, int, frozenset[int]]] = set()
    for cpu in cpus:
        folder = f"/sys/devices/system/cpu/cpu{cpu}/cache"
        for index in reader.names(folder, r"index\d+"):
            place = f"{folder}/{index}"
            size = parse_size_bytes(reader.text(f"{place}/size"))
            level = parse_int(reader.text(f"{place}/level"))
            if not size or not level:
                continue
            shared = parse_cpu_list(reader.text(f"{place}/shared_cpu_list")) or frozenset({cpu})
            instances.add((level, reader.line(f"{place}/type").lower(), size, shared))
    counts = Counter((level, kind, size, len(shared)) for level, kind, size, shared in instances)
    return tuple(
        Cache(level, kind, size, count, shared_by)
        for (level, kind, size, shared_by), count in sorted(counts.items(), key=lambda item: item[0])
    )
