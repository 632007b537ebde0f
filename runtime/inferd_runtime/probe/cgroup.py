"""Finds the control groups we live in and the tightest limits they and their ancestors set, in versions 1 and 2.

/proc/self/cgroup says where, /proc/self/mountinfo says where that is mounted; the chain runs from our group up to the
mount point. In a cgroup namespace our path is "/" and the mount point is the container's own group. Version 1 and 2
may be mounted side by side; every hierarchy that has something to say is heard, and the tightest limit wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from inferd_runtime.probe.formats import parse_cpu_list, parse_int, parse_pairs
from inferd_runtime.probe.machine import Limit
from inferd_runtime.probe.reader import Reader

MAX_DEPTH = 64
# Version 1 says "no limit" with the largest multiple of the page size; nothing real comes near.
UNLIMITED_BYTES = 1 << 60
_OCTAL = re.compile(r"\\([0-7]{3})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Membership:
    """One line of /proc/self/cgroup. Version 2 has no controllers here."""

    controllers: frozenset[str]
    path: str


@dataclass(frozen=True, slots=True)
class Mount:
    """One cgroup mount: which part of the hierarchy (`root`) is seen where (`point`)."""

    version: int
    controllers: frozenset[str]
    root: str
    point: str


def parse_memberships(text: str | None) -> list[Membership]:
    """Lines of "ID:CONTROLLERS:PATH"."""
    found = []
    for line in (text or "").splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3 and fields[2].startswith("/"):
            found.append(Membership(frozenset(name for name in fields[1].split(",") if name), fields[2]))
    return found


def parse_mounts(text: str | None) -> list[Mount]:
    """The cgroup mounts of a mountinfo text, in its order."""
    found = []
    for line in (text or "").splitlines():
        before, separator, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        if not separator or len(fields) < 5 or tail[0] not in ("cgroup", "cgroup2"):
            continue
        version = 2 if tail[0] == "cgroup2" else 1
        controllers = frozenset(tail[2].split(",")) if version == 1 and len(tail) > 2 else frozenset[str]()
        found.append(Mount(version, controllers, _unescape(fields[3]), _unescape(fields[4])))
    return found


def chain(mount: Mount, path: str) -> list[str]:
    """The group's folder and its ancestors' as far as they are mounted, the innermost first.

    A path outside of what is mounted (a namespace's "/../x", a bind mount of another group) leaves the mount point.
    """
    point = mount.point.rstrip("/")
    inside = _inside(path, mount.root)
    names = [] if inside is None else [name for name in inside.split("/") if name]
    if ".." in names:
        names = []
    depths = range(min(len(names), MAX_DEPTH), -1, -1)
    return ["/".join([point, *names[:depth]]) or "/" for depth in depths]


def parse_cpu_max(text: str | None) -> float | None:
    """CPUs from version 2's "QUOTA PERIOD" in microseconds; "max" is no limit."""
    fields = (text or "").split()
    quota = parse_int(fields[0]) if fields else None
    period = parse_int(fields[1]) if len(fields) > 1 else 100_000
    return _ratio(quota, period)


def parse_cfs(quota: str | None, period: str | None) -> float | None:
    """CPUs from version 1's two files; -1 is no limit."""
    return _ratio(parse_int(quota), parse_int(period))


class Cgroups:
    """The control groups of this process, as `reader` sees them."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._memberships = parse_memberships(reader.text("/proc/self/cgroup"))
        self._mounts = parse_mounts(reader.text("/proc/self/mountinfo"))

    def cpu_quota(self) -> Limit | None:
        """The tightest CPU quota in force, in CPUs."""
        limits = []
        for version, folder in self._folders("cpu"):
            if version == 2:
                cpus = parse_cpu_max(self._reader.text(f"{folder}/cpu.max"))
            else:
                text = self._reader.text
                cpus = parse_cfs(text(f"{folder}/cpu.cfs_quota_us"), text(f"{folder}/cpu.cfs_period_us"))
            if cpus is not None:
                limits.append(Limit(cpus, f"cgroup v{version}", folder))
        return min(limits, key=lambda limit: limit.value, default=None)

    def cpuset(self) -> frozenset[int] | None:
        """The CPUs that every cpuset in the chain lets us have; None where none says anything."""
        allowed: frozenset[int] | None = None
        for version, folder in self._folders("cpuset"):
            effective = "cpuset.cpus.effective" if version == 2 else "cpuset.effective_cpus"
            text = self._reader.text(f"{folder}/{effective}") or self._reader.text(f"{folder}/cpuset.cpus")
            cpus = parse_cpu_list(text)
            if cpus:
                allowed = cpus if allowed is None else allowed & cpus
        return allowed

    def memory_limit(self) -> Limit | None:
        """The tightest memory limit in force, in bytes."""
        limits: list[Limit] = []
        for version, folder in self._folders("memory"):
            values = self._memory_limits(version, folder)
            limits.extend(Limit(value, f"cgroup v{version}", folder) for value in values if 0 < value < UNLIMITED_BYTES)
        return min(limits, key=lambda limit: limit.value, default=None)

    def _memory_limits(self, version: int, folder: str) -> list[int]:
        text = self._reader.text
        if version == 2:
            # memory.high does not kill but stalls: beyond it a process is as good as stopped.
            found = [parse_int(text(f"{folder}/memory.max")), parse_int(text(f"{folder}/memory.high"))]
        else:
            # The hierarchical value knows of ancestors that a container cannot see.
            stat = parse_pairs(text(f"{folder}/memory.stat"), " ")
            found = [
                parse_int(text(f"{folder}/memory.limit_in_bytes")),
                parse_int(stat.get("hierarchical_memory_limit")),
            ]
        return [value for value in found if value is not None]

    def _folders(self, controller: str) -> Iterator[tuple[int, str]]:
        """Every folder that may limit `controller` for us, as (version, folder)."""
        for membership in self._memberships:
            version = 1 if membership.controllers else 2
            if version == 1 and controller not in membership.controllers:
                continue
            mounts = [m for m in self._mounts if m.version == version]
            if version == 1:
                mounts = [m for m in mounts if controller in m.controllers]
            mount = _best_mount(mounts, membership.path)
            if mount is not None:
                yield from ((version, folder) for folder in chain(mount, membership.path))


def memory_used_bytes(reader: Reader, limit: Limit) -> int:
    """What counts against `limit` and cannot simply be dropped: the usage less the idle file cache."""
    used = parse_int(reader.text(f"{limit.cgroup}/memory.current"))
    if used is None:
        used = parse_int(reader.text(f"{limit.cgroup}/memory.usage_in_bytes")) or 0
    stat = parse_pairs(reader.text(f"{limit.cgroup}/memory.stat"), " ")
    idle = parse_int(stat.get("total_inactive_file") or stat.get("inactive_file")) or 0
    return max(0, used - idle)


def _best_mount(mounts: list[Mount], path: str) -> Mount | None:
    """The mount that shows most of the chain: one whose root holds `path`, the shortest root; else any."""
    holding = [mount for mount in mounts if _inside(path, mount.root) is not None]
    return min(holding or mounts, key=lambda mount: len(mount.root), default=None)


def _inside(path: str, root: str) -> str | None:
    """`path` as seen from `root`, or None when it lies elsewhere."""
    if root == "/":
        return path
    if path == root or path.startswith(root.rstrip("/") + "/"):
        return path[len(root.rstrip("/")) :]
    return None


def _ratio(quota: int | None, period: int | None) -> float | None:
    if quota is None or period is None or quota <= 0 or period <= 0:
        return None
    return round(quota / period, 3) or 0.001


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
