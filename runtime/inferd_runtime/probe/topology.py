"""Which logical CPUs share a core, and which cores are fast: /sys/devices/system/cpu and the hybrid PMU lists.

The rule for "fast": Intel's own lists (cpu_core, cpu_atom) where the kernel has them, else the scheduler's
cpu_capacity, else the highest clock. A core is an efficiency core when it is clearly slower than the best, not by a
shade.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from inferd_runtime.probe.cpu import parse_cpuinfo
from inferd_runtime.probe.formats import parse_cpu_list, parse_int
from inferd_runtime.probe.machine import EFFICIENCY, PERFORMANCE, Core
from inferd_runtime.probe.reader import Reader

# A55 beside A76 has about half its capacity, a middle core beside a prime core four fifths.
CAPACITY_RATIO = 2 / 3
# Favoured cores of one kind differ by some percent in clock; Gracemont beside Golden Cove runs at about 0.73.
CLOCK_RATIO = 0.8
_CPUS = "/sys/devices/system/cpu"


def online_cpus(reader: Reader, fallback: Iterable[int]) -> frozenset[int]:
    """The CPUs that are switched on; from cpuinfo, then from `fallback`, where sysfs is not there."""
    online = parse_cpu_list(reader.text(f"{_CPUS}/online"))
    if not online:
        online = frozenset(int(block["processor"]) for block in parse_cpuinfo(reader.text("/proc/cpuinfo")))
    return online or frozenset(fallback) or frozenset({0})


def classify(
    cpus: Iterable[int],
    *,
    atoms: frozenset[int] = frozenset(),
    capacities: dict[int, int] | None = None,
    clocks_khz: dict[int, int] | None = None,
) -> dict[int, str]:
    """Performance or efficiency for each CPU."""
    everyone = frozenset(cpus)
    slow = everyone & atoms
    if not atoms:
        slow = _slower(capacities or {}, CAPACITY_RATIO)
        if len(set((capacities or {}).values())) < 2:
            slow = _slower(clocks_khz or {}, CLOCK_RATIO)
    if slow >= everyone:
        slow = frozenset()  # all equal is not hybrid, whatever the cores are called
    return {cpu: EFFICIENCY if cpu in slow else PERFORMANCE for cpu in everyone}


def read_cores(reader: Reader, online: frozenset[int]) -> tuple[Core, ...]:
    """All CPUs that are on, by number. `is_sibling` is left for `mark_siblings`, which knows who is allowed."""
    numbers = {cpu: _read_numbers(reader, f"{_CPUS}/cpu{cpu}") for cpu in online}
    core_list = parse_cpu_list(reader.text("/sys/devices/cpu_core/cpus"))
    atoms = parse_cpu_list(reader.text("/sys/devices/cpu_atom/cpus"))
    kinds = classify(
        online,
        atoms=atoms if core_list else frozenset(),
        capacities={cpu: n["capacity"] for cpu, n in numbers.items() if n["capacity"] is not None},
        clocks_khz={cpu: n["khz"] for cpu, n in numbers.items() if n["khz"] is not None},
    )
    return tuple(_core(cpu, numbers[cpu], kinds[cpu]) for cpu in sorted(online))


def mark_siblings(cores: tuple[Core, ...], allowed: frozenset[int]) -> tuple[Core, ...]:
    """Of the CPUs on one physical core, the first allowed one stands for it; the others are its siblings.

    So a process bound to the second threads only still has whole cores.
    """
    taken: set[tuple[int, int]] = set()
    siblings: set[int] = set()
    for core in sorted(cores, key=lambda core: (core.id not in allowed, core.id)):
        place = (core.package, core.physical)
        if place in taken:
            siblings.add(core.id)
        taken.add(place)
    return tuple(replace(core, is_sibling=core.id in siblings) for core in cores)


def prefer(cores: tuple[Core, ...], allowed: frozenset[int]) -> tuple[int, ...]:
    """The allowed CPUs, best first: performance cores, efficiency cores, SMT siblings."""
    chosen = [core for core in cores if core.id in allowed]
    return tuple(c.id for c in sorted(chosen, key=lambda c: (c.is_sibling, c.kind == EFFICIENCY, c.id)))


def _slower(values: dict[int, int], ratio: float) -> frozenset[int]:
    best = max(values.values(), default=0)
    return frozenset(cpu for cpu, value in values.items() if value < best * ratio)


def _read_numbers(reader: Reader, folder: str) -> dict[str, int | None]:
    files = {
        "package": "topology/physical_package_id",
        "physical": "topology/core_id",
        "capacity": "cpu_capacity",
        "khz": "cpufreq/cpuinfo_max_freq",
    }
    numbers = {name: parse_int(reader.text(f"{folder}/{file}")) for name, file in files.items()}
    siblings = parse_cpu_list(reader.text(f"{folder}/topology/thread_siblings_list"))
    numbers["first_sibling"] = min(siblings, default=None)
    return numbers


def _core(cpu: int, numbers: dict[str, int | None], kind: str) -> Core:
    # core_id repeats from cluster to cluster on ARM; the lowest thread sibling names a physical core everywhere.
    first = numbers["first_sibling"]
    physical = first if first is not None else numbers["physical"]
    khz = numbers["khz"]
    return Core(
        id=cpu,
        package=max(0, numbers["package"] or 0),  # -1 where the firmware does not say
        physical=cpu if physical is None else physical,
        kind=kind,
        max_mhz=None if khz is None else khz // 1000,
    )
