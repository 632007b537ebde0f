"""Probe: what this machine is and what of it we may use. Knows nothing of engines, models or jobs.

`probe()` reads /proc, /sys and /dev below a root and returns a frozen `Machine`. Parsers take text, readers take a
root; nothing that is missing, forbidden or garbled makes it fail. `load` samples how busy the machine is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from inferd_runtime.probe.cgroup import Cgroups
from inferd_runtime.probe.cpu import read_cpu
from inferd_runtime.probe.devices import read_devices
from inferd_runtime.probe.formats import show_cpu_list
from inferd_runtime.probe.machine import Cache, Core, Cpu, Device, Limit, Machine, Memory
from inferd_runtime.probe.memory import read_caches, read_memory
from inferd_runtime.probe.reader import Reader
from inferd_runtime.probe.topology import mark_siblings, online_cpus, prefer, read_cores

__all__ = ["Cache", "Core", "Cpu", "Device", "Limit", "Machine", "Memory", "examine", "probe"]

# What firmware says when its maker did not fill in the form.
_NO_NAMES = frozenset({"default string", "to be filled by o.e.m.", "system product name", "not specified", "none"})


def probe(root: Path = Path("/"), *, affinity: Iterable[int] | None = None) -> Machine:
    """The Machine below `root`; `affinity` is what the scheduler lets us run on, by default as it stands now."""
    return examine(Reader(root), os.sched_getaffinity(0) if affinity is None else affinity)


def examine(reader: Reader, affinity: Iterable[int]) -> Machine:
    """The Machine as `reader` sees it."""
    bound = frozenset(affinity)
    cgroups = Cgroups(reader)
    online = online_cpus(reader, bound)
    cpuset = cgroups.cpuset()
    # A set that leaves nothing is a misreading (a recording, a masked /sys), for here we are, running.
    allowed = online & bound & (online if cpuset is None else cpuset) or online & bound or online
    cores = mark_siblings(read_cores(reader, online), allowed)
    quota = cgroups.cpu_quota()
    budget = float(len(allowed)) if quota is None else min(float(len(allowed)), quota.value)
    return Machine(
        cpu=read_cpu(reader, cores),
        cores=cores,
        allowed_cores=prefer(cores, allowed),
        core_budget=budget,
        core_reason=_tell(online, bound, cpuset, allowed, quota),
        quota=quota,
        caches=read_caches(reader, sorted(online)),
        memory=read_memory(reader, cgroups),
        devices=read_devices(reader),
        board=_read_board(reader),
        kernel=reader.line("/proc/sys/kernel/osrelease"),
    )


def _read_board(reader: Reader) -> str:
    name = reader.line("/proc/device-tree/model") or reader.line("/sys/class/dmi/id/product_name")
    return "" if name.lower() in _NO_NAMES else name


def _tell(
    online: frozenset[int],
    bound: frozenset[int],
    cpuset: frozenset[int] | None,
    allowed: frozenset[int],
    quota: Limit | None,
) -> str:
    """Why the core budget is what it is, in one line."""
    cores = f"{len(allowed)} allowed {'core' if len(allowed) == 1 else 'cores'}"
    if quota is not None and quota.value < len(allowed):
        return f"quota {quota.value:g} CPUs ({quota.source} {quota.cgroup}) limits {cores}"
    limits = []
    if cpuset is not None and not online <= cpuset:
        limits.append(f"cpuset {show_cpu_list(cpuset)}")
    if not online <= bound:
        limits.append(f"affinity {show_cpu_list(bound)}")
    if limits:
        return f"{' and '.join(limits)} {'leaves' if len(limits) == 1 else 'leave'} {cores} of {len(online)}"
    return f"{cores}, nothing limits them"
