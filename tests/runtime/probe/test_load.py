"""The load sampler: differences between counters, on the CPUs that are ours, without waiting."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from inferd_runtime.probe import Machine
from inferd_runtime.probe.load import SLOW_SENSORS_EVERY_S, LoadSampler, parse_psi
from inferd_runtime.probe.sensors import Heat, Sensors, Spent
from tests.fixtures.machines.replay import load_tree, replay


class Figures(Sensors):
    """Counters set by the test. `others` is what each other process has used."""

    def __init__(self, cpus: int) -> None:
        self.busy = [100.0] * cpus
        self.own = 5.0
        self.others: dict[int, Spent] = {}
        self.started: tuple[int, ...] = ()
        self.cores = frozenset(range(cpus))
        self.slow_reads = 0
        self.degrees: float | Exception = 61.0

    def busy_s(self) -> tuple[float, ...]:
        return tuple(self.busy)

    def own_s(self) -> float:
        return self.own

    def allowed(self) -> frozenset[int]:
        return self.cores

    def children(self) -> tuple[int, ...]:
        return self.started

    def share_on(self, pid: int, cores: frozenset[int]) -> float:
        return 0.5

    def spent(self, pid: int) -> Spent | None:
        return self.others.get(pid)

    def available_bytes(self) -> int:
        return 1 << 30

    def heat(self) -> Heat | None:
        self.slow_reads += 1
        if isinstance(self.degrees, Exception):
            raise self.degrees
        return Heat(self.degrees, 95.0)

    def on_battery(self) -> bool | None:
        return False


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def container(root: Path) -> Machine:
    return replay(load_tree("container-cgroup-v2"), root)


def test_busy_cores_are_differences(tmp_path: Path) -> None:
    """Host, own and others' use are counter differences over the time that passed."""
    figures, clock = Figures(4), Clock()
    sampler = LoadSampler(sensors=figures, root=tmp_path, clock=clock)
    clock.now_s += 0.5
    figures.busy = [100.5, 100.25, 100.0, 100.0]
    figures.own += 0.25
    sample = sampler.sample()
    assert (sample.window_s, sample.core_count) == (0.5, 4)
    assert sample.host_busy_cores == pytest.approx(1.5)
    assert sample.own_busy_cores == pytest.approx(0.5)
    assert sample.others_busy_cores == pytest.approx(1.0)
    assert sample.memory_available_bytes == 1 << 30


def test_callers_are_no_neighbours(tmp_path: Path) -> None:
    """What those who call us use is told apart from what others use."""
    figures, clock = Figures(2), Clock()
    figures.others = {41: Spent(10.0, 3.0), 42: Spent(11.0, 3.0)}
    sampler = LoadSampler(callers=lambda: [41], sensors=figures, root=tmp_path, clock=clock)
    sampler.sample()
    clock.now_s += 0.5
    figures.busy = [100.5, 100.4]
    figures.own += 0.3
    figures.others = {41: Spent(10.0, 3.25), 42: Spent(11.0, 3.35)}
    sample = sampler.sample()
    assert sample.callers_busy_cores == pytest.approx(0.5)
    assert sample.others_busy_cores == pytest.approx(0.7)


def test_what_we_started_is_our_own(tmp_path: Path) -> None:
    """The processes that engines run in count as ours, from their start."""
    figures, clock = Figures(2), Clock()
    sampler = LoadSampler(sensors=figures, root=tmp_path, clock=clock)
    clock.now_s += 0.5
    figures.busy = [100.5, 100.4]
    figures.own += 0.1
    figures.started, figures.others = (43,), {43: Spent(1000.1, 0.4)}
    sample = sampler.sample()
    assert sample.own_busy_cores == pytest.approx(1.0)
    assert sample.others_busy_cores == pytest.approx(0.8)


def test_only_allowed_cores_count(tmp_path: Path) -> None:
    """Load on CPUs that we may not use is none of our business, and of our callers' there about the part is left out
    that they had there."""
    machine = replay(load_tree("container-cgroup-v1"), tmp_path)
    figures, clock = Figures(8), Clock()
    figures.cores, figures.others = frozenset(machine.allowed_cores), {41: Spent(1.0, 1.0)}
    sampler = LoadSampler(machine, callers=lambda: [41], sensors=figures, root=tmp_path, clock=clock)
    sampler.sample()
    clock.now_s += 1
    figures.busy = [101.0, 100.0, 100.0, 101.0, 100.5, 101.0, 101.0, 101.0]
    figures.others = {41: Spent(1.0, 1.6)}
    sample = sampler.sample()
    assert sample.core_count == 4
    assert sample.host_busy_cores == pytest.approx(1.5)  # CPUs 0 and 4 of 0-2,4
    assert sample.callers_busy_cores == pytest.approx(0.3)


def test_cores_that_are_taken_away_no_longer_count(tmp_path: Path) -> None:
    """What we may run on is read each time."""
    machine = replay(load_tree("intel-i7-12700"), tmp_path)
    figures, clock = Figures(20), Clock()
    sampler = LoadSampler(machine, sensors=figures, root=tmp_path, clock=clock)
    assert (sampler.sample().core_count, sampler.sample().physical_count) == (20, 12)
    figures.cores = frozenset({0, 1, 2})
    clock.now_s += 1
    figures.busy = [101.0] * 20
    sample = sampler.sample()
    assert (sample.core_count, sample.physical_count, sample.host_busy_cores) == (3, 2, 3.0)
    figures.cores = frozenset({99})  # came into being after us: nothing is known of it, so all counts
    assert sampler.sample().core_count == 20


def test_no_time_is_no_load(tmp_path: Path) -> None:
    """Two samples at once divide by nothing, and counters that run backwards count as idle."""
    figures, clock = Figures(2), Clock()
    sampler = LoadSampler(sensors=figures, root=tmp_path, clock=clock)
    assert sampler.sample().host_busy_cores == 0
    clock.now_s += 1
    figures.busy, figures.own = [50.0, 50.0], 1.0
    assert sampler.sample().others_busy_cores == 0


def test_a_cpu_switched_off_voids_one_sample(tmp_path: Path) -> None:
    """When the number of CPUs changes, one window says nothing, and the next is right again."""
    figures, clock = Figures(2), Clock()
    sampler = LoadSampler(sensors=figures, root=tmp_path, clock=clock)
    clock.now_s += 1
    figures.busy = [101.0]
    assert sampler.sample().host_busy_cores == 0
    clock.now_s += 1
    figures.busy = [102.0]
    assert sampler.sample().host_busy_cores == pytest.approx(1.0)


def test_coarse_counters_never_claim_more_than_all(tmp_path: Path) -> None:
    """A tick that falls into a short window makes a CPU busy, never busier than that."""
    figures, clock = Figures(2), Clock()
    sampler = LoadSampler(sensors=figures, root=tmp_path, clock=clock)
    clock.now_s += 0.001
    figures.busy = [100.01, 100.0]
    assert sampler.sample().host_busy_cores == pytest.approx(1.0)


def test_throttling_and_pressure_come_from_the_kernel(tmp_path: Path) -> None:
    """The shares of throttled periods and of time that tasks waited are differences; without PSI there is none."""
    machine = container(tmp_path)
    figures, clock = Figures(8), Clock()
    sampler = LoadSampler(machine, sensors=figures, root=tmp_path, clock=clock)
    assert sampler.sample().pressure is None
    (tmp_path / "sys/fs/cgroup/cpu.stat").write_text("nr_periods 1210\nnr_throttled 304\n")
    pressure = tmp_path / "proc/pressure/cpu"
    pressure.parent.mkdir()
    pressure.write_text("some avg10=12.50 avg60=0.00 avg300=0.00 total=1000000\nfull avg10=0.00 total=7\n")
    clock.now_s += 0.5
    sample = sampler.sample()
    assert sample.throttled == pytest.approx(0.4)
    assert sample.pressure == 0.0
    pressure.write_text("some avg10=12.50 avg60=0.00 avg300=0.00 total=1200000\nfull avg10=0.00 total=7\n")
    clock.now_s += 0.5
    sample = sampler.sample()
    assert sample.throttled == 0
    assert sample.pressure == pytest.approx(0.4)


@pytest.mark.parametrize("text", [None, "", "full avg10=0.00 total=7", "some total=x", "some avg10", "some"])
def test_strange_pressure_is_no_pressure(text: str | None) -> None:
    """What cannot be understood is not there."""
    assert parse_psi(text) is None


def test_available_memory_heeds_the_limit(tmp_path: Path) -> None:
    """What the host has free is no use to a container that is full."""
    figures = Figures(8)
    sampler = LoadSampler(container(tmp_path), sensors=figures, root=tmp_path, clock=Clock())
    assert sampler.sample().memory_available_bytes == 1 << 30
    (tmp_path / "sys/fs/cgroup/memory.current").write_text(f"{2000 << 20}\n")
    assert sampler.sample().memory_available_bytes == (2048 - 2000 + 50) << 20


def test_slow_sensors_are_asked_seldom_and_forgiven(tmp_path: Path) -> None:
    """Temperature is kept for a while, and a sensor that fails is one that does not tell."""
    figures, clock = Figures(1), Clock()
    sampler = LoadSampler(sensors=figures, root=tmp_path, clock=clock)
    sample = sampler.sample()
    assert (sample.temperature_c, sample.hot_c) == (61.0, 95.0)
    sampler.sample()
    assert figures.slow_reads == 1
    clock.now_s += SLOW_SENSORS_EVERY_S
    figures.degrees = OSError("dead sensor")
    sample = sampler.sample()
    assert figures.slow_reads == 2
    assert (sample.temperature_c, sample.hot_c) == (None, None)
    assert sample.on_battery is False


def test_the_real_machine_answers() -> None:
    """psutil's own figures make sense here: some memory is left, and nobody is busier than the machine."""
    sampler = LoadSampler(callers=lambda: [os.getpid(), 2**22 + 1])
    sampler.sample()
    sum(i * i for i in range(200_000))
    sample = sampler.sample()
    assert sample.memory_available_bytes > 1 << 20
    assert sample.own_busy_cores >= 0
    assert 0 <= sample.callers_busy_cores <= sample.core_count
    assert 0 <= sample.host_busy_cores <= sample.core_count
    assert sample.throttled is None


def test_the_real_sensors_answer() -> None:
    """Processes are read by number, and those that we started are known while they run."""
    sensors = Sensors()
    used = sensors.spent(os.getpid())
    assert used is not None
    assert used.cpu_s > 0
    assert sensors.spent(2**22 + 1) is None
    assert sensors.share_on(os.getpid(), sensors.allowed()) == 1.0
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert child.pid in sensors.children()
    assert child.pid not in sensors.children()
