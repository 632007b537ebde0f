"""How busy the machine is at the moment: the only room that knows psutil.

`sample()` never blocks or waits: it takes the counters and compares them with the last time. It counts the CPUs that we
are allowed to run on, so that in a container the rest of a large host does not drown what matters here. Slow sensors
(temperature, battery) are read at most every few seconds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil  # type: ignore[import-untyped]

from inferd_runtime.probe.callers import Callers, Spent
from inferd_runtime.probe.cgroup import memory_used_bytes
from inferd_runtime.probe.formats import parse_int, parse_pairs
from inferd_runtime.probe.machine import Machine
from inferd_runtime.probe.reader import Reader

T = TypeVar("T")

SLOW_SENSORS_EVERY_S = 5.0
# What drivers call a sensor in or beside the processor; disks, radios and batteries say nothing about our heat.
CPU_SENSORS = (
    "coretemp", "k10temp", "zenpower", "x86_pkg_temp", "cpu_thermal", "cpu-thermal", "CPU-therm", "soc_thermal",
    "soc-thermal", "tj_thermal", "tj-thermal",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoadSample:
    """What went on since the last sample, `window_s` ago. None: this machine does not tell.

    `host_busy_cores` counts everybody on our allowed CPUs, us included; `own_busy_cores` this process alone, and
    `callers_busy_cores` those on this machine that wait for our answers.
    `throttled` is the share of quota periods in which our control group was stopped. `memory_available_bytes` heeds the
    control group's limit.
    """

    taken_s: float
    window_s: float
    host_busy_cores: float
    own_busy_cores: float
    callers_busy_cores: float
    core_count: int
    psi_cpu_some_avg10: float | None
    throttled: float | None
    temperature_c: float | None
    on_battery: bool | None
    memory_rss_bytes: int
    memory_available_bytes: int

    @property
    def others_busy_cores(self) -> float:
        """Cores, of those we may use, that are kept busy by processes that have nothing to do with us."""
        return max(0.0, self.host_busy_cores - self.own_busy_cores - self.callers_busy_cores)


class Sensors:
    """The real counters, through psutil. Tests put their own figures in its place."""

    def __init__(self) -> None:
        self._process = psutil.Process()

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

    def spent(self, pid: int) -> Spent | None:
        """What another process has used; None where it is gone, or hidden from us."""
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                return Spent(process.create_time(), times.user + times.system)
        except (psutil.Error, OSError):
            return None

    def rss_bytes(self) -> int:
        """Resident memory of this process."""
        return int(self._process.memory_info().rss)

    def available_bytes(self) -> int:
        """Memory that could be had without swapping."""
        return int(psutil.virtual_memory().available)

    def temperature_c(self) -> float | None:
        """The hottest sensor of the processor."""
        by_driver = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
        found = [reading.current for name in by_driver if name in CPU_SENSORS for reading in by_driver[name]]
        return max((float(value) for value in found if value is not None and -50 < value < 150), default=None)

    def on_battery(self) -> bool | None:
        """Whether a battery feeds us; None without a battery."""
        battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
        plugged = None if battery is None else battery.power_plugged
        return None if plugged is None else not plugged


def parse_psi(text: str | None) -> float | None:
    """The share of the last 10 s in percent during which some task waited for a CPU."""
    for line in (text or "").splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "some":
            for field in rest.split():
                key, _, value = field.partition("=")
                if key == "avg10":
                    with contextlib.suppress(ValueError):
                        return float(value)
    return None


def parse_cpu_stat(text: str | None) -> tuple[int, int] | None:
    """(periods, throttled periods) of a control group with a quota; the names are the same in versions 1 and 2."""
    pairs = parse_pairs(text, " ")
    periods, throttled = parse_int(pairs.get("nr_periods")), parse_int(pairs.get("nr_throttled"))
    return None if periods is None or throttled is None else (periods, throttled)


class LoadSampler:
    """Takes samples; one thread at a time. The first sample covers no time and reports nobody busy.

    `callers()` names the processes that called us since it was last asked.
    """

    def __init__(
        self,
        machine: Machine | None = None,
        *,
        callers: Callable[[], Collection[int]] = tuple,
        sensors: Sensors | None = None,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sensors = sensors or Sensors()
        self._callers = Callers(callers, self._sensors.spent)
        self._reader = Reader(root)
        self._clock = clock
        self._quota = machine.quota if machine else None
        self._memory_limit = machine.memory.limit if machine else None
        self._places = _places(machine)
        self._slow: tuple[float | None, bool | None] = (None, None)
        self._slow_at_s: float | None = None
        self._last_s = clock()
        self._last_busy_s = self._sensors.busy_s()
        self._last_own_s = self._sensors.own_s()
        self._last_periods = self._read_periods()

    def sample(self) -> LoadSample:
        """Compare the counters with the last time."""
        now_s, busy_s, own_s = self._clock(), self._sensors.busy_s(), self._sensors.own_s()
        window_s = max(0.0, now_s - self._last_s)
        host, count = self._count_busy(busy_s, window_s)
        own = max(0.0, own_s - self._last_own_s) / window_s if window_s else 0.0
        callers_s = self._callers.busy_s(now_s, window_s * count)
        temperature_c, on_battery = self._read_slow(now_s)
        sample = LoadSample(
            taken_s=now_s,
            window_s=window_s,
            # Two clocks of different grain: we cannot have used more than was used.
            host_busy_cores=max(host, min(own, float(count))),
            own_busy_cores=own,
            callers_busy_cores=callers_s / window_s if window_s else 0.0,
            core_count=count,
            psi_cpu_some_avg10=parse_psi(self._reader.text("/proc/pressure/cpu")),
            throttled=self._share_throttled(),
            temperature_c=temperature_c,
            on_battery=on_battery,
            memory_rss_bytes=self._sensors.rss_bytes(),
            memory_available_bytes=self._count_available(),
        )
        self._last_s, self._last_busy_s, self._last_own_s = now_s, busy_s, own_s
        return sample

    def _count_busy(self, busy_s: tuple[float, ...], window_s: float) -> tuple[float, int]:
        """(busy cores, cores counted). A CPU that was switched on or off meanwhile voids the comparison."""
        everyone = range(len(busy_s))
        places = [p for p in self._places if p < len(busy_s)] if self._places else everyone
        places = places or everyone
        if not window_s or len(busy_s) != len(self._last_busy_s):
            return 0.0, len(places)
        # No CPU is busier than all of the time: tick-grained counters would claim so over short windows.
        shares = (min(1.0, max(0.0, (busy_s[p] - self._last_busy_s[p]) / window_s)) for p in places)
        return sum(shares), len(places)

    def _count_available(self) -> int:
        available, limit = self._sensors.available_bytes(), self._memory_limit
        if limit is None:
            return available
        return max(0, min(available, int(limit.value) - memory_used_bytes(self._reader, limit)))

    def _share_throttled(self) -> float | None:
        before, now = self._last_periods, self._read_periods()
        self._last_periods = now
        if before is None or now is None or now[0] <= before[0]:
            return None if now is None else 0.0
        return min(1.0, max(0.0, (now[1] - before[1]) / (now[0] - before[0])))

    def _read_periods(self) -> tuple[int, int] | None:
        return parse_cpu_stat(self._reader.text(f"{self._quota.cgroup}/cpu.stat")) if self._quota else None

    def _read_slow(self, now_s: float) -> tuple[float | None, bool | None]:
        if self._slow_at_s is None or now_s - self._slow_at_s >= SLOW_SENSORS_EVERY_S:
            self._slow_at_s = now_s
            self._slow = (_quietly(self._sensors.temperature_c), _quietly(self._sensors.on_battery))
        return self._slow


def _places(machine: Machine | None) -> Collection[int]:
    """Where our allowed CPUs stand in a list of those that are on; psutil gives no CPU numbers."""
    if machine is None:
        return ()
    allowed = set(machine.allowed_cores)
    return tuple(place for place, core in enumerate(machine.cores) if core.id in allowed)


def _quietly(read: Callable[[], T | None]) -> T | None:
    """A sensor's driver may answer anything, and psutil passes it on; none of it is worth a failure."""
    try:
        return read()
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError):
        return None
