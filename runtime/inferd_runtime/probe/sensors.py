"""The host's counters and sensors as they stand: the only module that knows psutil.

Every reading is a total or a momentary value; comparing and forgiving is `load`'s business. Linux is asked directly
where psutil would walk through all processes for the answer.
"""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]

# What drivers call a sensor in or beside the processor; disks, radios and batteries say nothing about our heat.
CPU_SENSORS = (
    "coretemp", "k10temp", "zenpower", "x86_pkg_temp", "cpu_thermal", "cpu-thermal", "CPU-therm", "soc_thermal",
    "soc-thermal", "tj_thermal", "tj-thermal",
)  # fmt: skip


class Spent(NamedTuple):
    """What a process has used: CPU seconds of all its threads since it started, at a time that tells it from others."""

    started_s: float
    cpu_s: float


class Heat(NamedTuple):
    """The hottest sensor of the processor, and from where on its drivers call that hot, if they do."""

    now_c: float
    hot_c: float | None


class Sensors:
    """The real ones. Tests put their own figures in its place."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def allowed(self) -> frozenset[int]:
        """The CPUs that the scheduler lets us run on, as it stands now."""
        return frozenset(os.sched_getaffinity(0))

    def busy_s(self) -> tuple[float, ...]:
        """Seconds each CPU that is on has been busy since boot, in the order of their numbers.

        Time stolen by a hypervisor counts as busy: nobody here can have it.
        """
        return tuple(
            t.user + t.nice + t.system + getattr(t, "irq", 0.0) + getattr(t, "softirq", 0.0) + getattr(t, "steal", 0.0)
            for t in psutil.cpu_times(percpu=True)
        )

    def own_s(self) -> float:
        """CPU seconds of this process, all threads."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def children(self) -> tuple[int, ...]:
        """The processes that we started and that still run."""
        found: list[int] = []
        for task in os.listdir("/proc/self/task"):  # noqa: PTH208  several times a second
            with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children", "rb") as file:  # noqa: PTH123
                found += map(int, file.read().split())
        return tuple(found)

    def spent(self, pid: int) -> Spent | None:
        """What another process has used; None where it is gone, or hidden from us."""
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                return Spent(process.create_time(), times.user + times.system)
        except (psutil.Error, OSError):
            return None

    def share_on(self, pid: int, cores: frozenset[int]) -> float:
        """The part of the CPUs a process may run on that are among `cores`; all where that cannot be told."""
        try:
            theirs = os.sched_getaffinity(pid)
        except OSError:
            return 1.0
        return len(theirs & cores) / len(theirs)

    def available_bytes(self) -> int:
        """Memory that could be had without swapping."""
        return int(psutil.virtual_memory().available)

    def heat(self) -> Heat | None:
        """How hot the processor is."""
        by_driver = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
        found = [reading for name in by_driver if name in CPU_SENSORS for reading in by_driver[name]]
        now = [float(each.current) for each in found if each.current is not None and -50 < each.current < 150]
        # A mark that no running processor could stay below is a field that nobody filled in.
        hot = [float(each.high) for each in found if each.high is not None and 60 <= each.high < 150]
        return Heat(max(now), min(hot, default=None)) if now else None

    def on_battery(self) -> bool | None:
        """Whether a battery feeds us; None without a battery."""
        battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
        plugged = None if battery is None else battery.power_plugged
        return None if plugged is None else not plugged
