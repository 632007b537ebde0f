"""How busy the machine is at the moment, and with whose work.

`sample()` never blocks or waits: it takes the counters and compares them with the last time. It counts the CPUs that we
are allowed to run on, as they stand at that moment, so that in a container the rest of a large host does not drown what
matters here. Slow sensors (temperature, battery) are read at most every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from inferd_runtime.probe.cgroup import memory_used_bytes
from inferd_runtime.probe.followed import Followed
from inferd_runtime.probe.formats import parse_int, parse_pairs
from inferd_runtime.probe.machine import Machine
from inferd_runtime.probe.reader import Reader
from inferd_runtime.probe.sensors import Heat, Sensors, Spent

T = TypeVar("T")

SLOW_SENSORS_EVERY_S = 5.0
# A process that called counts as a caller for so long: what it does between two calls belongs to them.
CALLER_KEPT_S = 3.0


@dataclass(frozen=True, slots=True)
class LoadSample:
    """What went on since the last sample, `window_s` ago. None: this machine does not tell.

    Busy cores are those of our `core_count` allowed CPUs, which lie on `physical_count` physical cores:
    `host_busy_cores` with everybody's work, `own_busy_cores` with that of this process and those it started, and
    `callers_busy_cores` with that of processes on this machine which wait for our answers. `pressure` is the share of
    the window in which some task waited for a CPU, `throttled` the share of quota periods in which our control group
    was stopped. `hot_c` is from where on the processor's drivers call it hot. `memory_available_bytes` heeds the
    control group's limit.
    """

    window_s: float
    host_busy_cores: float
    own_busy_cores: float
    callers_busy_cores: float
    core_count: int
    physical_count: int
    pressure: float | None
    throttled: float | None
    temperature_c: float | None
    hot_c: float | None
    on_battery: bool | None
    memory_available_bytes: int

    @property
    def others_busy_cores(self) -> float:
        """Cores, of those we may use, that are kept busy by processes that have nothing to do with us."""
        return max(0.0, self.host_busy_cores - self.own_busy_cores - self.callers_busy_cores)


def parse_psi(text: str | None) -> int | None:
    """The microseconds since boot during which some task waited."""
    for line in (text or "").splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "some":
            return parse_int(dict(field.partition("=")[::2] for field in rest.split()).get("total"))
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
        self._callers = Followed(callers, self._spent_here, CALLER_KEPT_S)
        self._children = Followed(self._sensors.children, self._sensors.spent)
        self._reader = Reader(root)
        self._clock = clock
        self._quota = machine.quota if machine else None
        self._memory_limit = machine.memory.limit if machine else None
        self._cores = machine.cores if machine else ()
        self._allowed = self._sensors.allowed()
        self._slow: tuple[Heat | None, bool | None] = (None, None)
        self._slow_at_s: float | None = None
        self._last_s = clock()
        self._last_busy_s = self._sensors.busy_s()
        self._last_own_s = self._sensors.own_s()
        self._last_waited_us = self._read_waited()
        self._last_periods = self._read_periods()

    def sample(self) -> LoadSample:
        """Compare the counters with the last time."""
        now_s, busy_s, own_s = self._clock(), self._sensors.busy_s(), self._sensors.own_s()
        window_s = max(0.0, now_s - self._last_s)
        self._allowed = self._sensors.allowed()
        host, count = self._count_busy(busy_s, window_s)
        most_s = window_s * count
        ours_s = max(0.0, own_s - self._last_own_s) + self._children.busy_s(now_s, most_s)
        callers_s = self._callers.busy_s(now_s, most_s)
        own = ours_s / window_s if window_s else 0.0
        heat, on_battery = self._read_slow(now_s)
        sample = LoadSample(
            window_s=window_s,
            # Two clocks of different grain: we cannot have used more than was used.
            host_busy_cores=max(host, min(own, float(count))),
            own_busy_cores=own,
            callers_busy_cores=callers_s / window_s if window_s else 0.0,
            core_count=count,
            physical_count=self._count_physical() or count,
            pressure=self._share_waited(window_s),
            throttled=self._share_throttled(),
            temperature_c=heat.now_c if heat else None,
            hot_c=heat.hot_c if heat else None,
            on_battery=on_battery,
            memory_available_bytes=self._count_available(),
        )
        self._last_s, self._last_busy_s, self._last_own_s = now_s, busy_s, own_s
        return sample

    def _count_busy(self, busy_s: tuple[float, ...], window_s: float) -> tuple[float, int]:
        """(busy cores, cores counted). A CPU that was switched on or off meanwhile voids the comparison."""
        places = self._places(len(busy_s))
        if not window_s or len(busy_s) != len(self._last_busy_s):
            return 0.0, len(places)
        # No CPU is busier than all of the time: tick-grained counters would claim so over short windows.
        shares = (min(1.0, max(0.0, (busy_s[p] - self._last_busy_s[p]) / window_s)) for p in places)
        return sum(shares), len(places)

    def _places(self, count: int) -> Collection[int]:
        """Where our allowed CPUs stand in a list of the `count` that are on; psutil gives no CPU numbers."""
        places = [at for at, core in enumerate(self._cores[:count]) if core.id in self._allowed]
        return places or range(count)

    def _count_physical(self) -> int:
        return len({(core.package, core.physical) for core in self._cores if core.id in self._allowed})

    def _spent_here(self, pid: int) -> Spent | None:
        """What a process has used on our CPUs; where we have not all of them, about so much."""
        spent = self._sensors.spent(pid)
        if spent is None or all(core.id in self._allowed for core in self._cores):
            return spent
        return Spent(spent.started_s, spent.cpu_s * self._sensors.share_on(pid, self._allowed))

    def _count_available(self) -> int:
        available, limit = self._sensors.available_bytes(), self._memory_limit
        if limit is None:
            return available
        return max(0, min(available, int(limit.value) - memory_used_bytes(self._reader, limit)))

    def _share_waited(self, window_s: float) -> float | None:
        before, now = self._last_waited_us, self._read_waited()
        self._last_waited_us = now
        if before is None or now is None or not window_s:
            return None if now is None else 0.0
        return min(1.0, max(0.0, (now - before) / 1e6 / window_s))

    def _read_waited(self) -> int | None:
        return parse_psi(self._reader.text("/proc/pressure/cpu"))

    def _share_throttled(self) -> float | None:
        before, now = self._last_periods, self._read_periods()
        self._last_periods = now
        if before is None or now is None or now[0] <= before[0]:
            return None if now is None else 0.0
        return min(1.0, max(0.0, (now[1] - before[1]) / (now[0] - before[0])))

    def _read_periods(self) -> tuple[int, int] | None:
        return parse_cpu_stat(self._reader.text(f"{self._quota.cgroup}/cpu.stat")) if self._quota else None

    def _read_slow(self, now_s: float) -> tuple[Heat | None, bool | None]:
        if self._slow_at_s is None or now_s - self._slow_at_s >= SLOW_SENSORS_EVERY_S:
            self._slow_at_s = now_s
            self._slow = (_quietly(self._sensors.heat), _quietly(self._sensors.on_battery))
        return self._slow


def _quietly(read: Callable[[], T | None]) -> T | None:
    """A sensor's driver may answer anything, and psutil passes it on; none of it is worth a failure."""
    try:
        return read()
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError):
        return None
