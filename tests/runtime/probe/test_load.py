"""The load sampler: differences between counters, on the CPUs that are ours, without waiting."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inferd_runtime.probe import Machine
from inferd_runtime.probe.callers import Spent
from inferd_runtime.probe.load import SLOW_SENSORS_EVERY_S, LoadSampler, Sensors
from tests.fixtures.machines.replay import load_tree, replay


class Figures(Sensors):
    """Counters set by the test. `others` is what each other process has used."""

    def __init__(self, cpus: int) -> None:
        self.busy = [100.0] * cpus
        self.own = 5.0
        self.others: dict[int, Spent] = {}
        self.slow_reads = 0
        self.heat: float | Exception | None = 61.0

    def busy_s(self) -> tuple[float, ...]:
        return tuple(self.busy)

    def own_s(self) -> float:
        return self.own

    def spent(self, pid: int) -> Spent | None:
        return self.others.get(pid)

    def rss_bytes(self) -> int:
        return 90 << 20

    def available_bytes(self) -> int:
        return 1 << 30

    def temperature_c(self) -> float | None:
        self.slow_reads += 1
        if isinstance(self.heat, Exception):
            raise self.heat
        return self.heat

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
    assert (sample.memory_rss_bytes, sample.memory_available_bytes) == (90 << 20, 1 << 30)


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


def test_only_allowed_cores_count(tmp_path: Path) -> None:
    """Load on CPUs that we may not use is none of our business."""
    machine = replay(load_tree("container-cgroup-v1"), tmp_path)
    figures, clock = Figures(8), Clock()
    sampler = LoadSampler(machine, sensors=figures, root=tmp_path, clock=clock)
    clock.now_s += 1
    figures.busy = [101.0, 100.0, 100.0, 101.0, 100.5, 101.0, 101.0, 101.0]
    sample = sampler.sample()
    assert sample.core_count == 4
    assert sample.host_busy_cores == pytest.approx(1.5)  # CPUs 0 and 4 of 0-2,4


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
    """The share of throttled periods is a difference; pressure is read as it stands, and is None without PSI."""
    machine = container(tmp_path)
    figures, clock = Figures(8), Clock()
    sampler = LoadSampler(machine, sensors=figures, root=tmp_path, clock=clock)
    assert sampler.sample().psi_cpu_some_avg10 is None
    (tmp_path / "sys/fs/cgroup/cpu.stat").write_text("nr_periods 1210\nnr_throttled 304\n")
    (tmp_path / "proc/pressure").mkdir()
    (tmp_path / "proc/pressure/cpu").write_text("some avg10=12.50 avg60=0.00 avg300=0.00 total=1\n")
    sample = sampler.sample()
    assert sample.throttled == pytest.approx(0.4)
    assert sample.psi_cpu_some_avg10 == 12.5
    assert sampler.sample().throttled == 0


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
    assert sampler.sample().temperature_c == 61.0
    sampler.sample()
    assert figures.slow_reads == 1
    clock.now_s += SLOW_SENSORS_EVERY_S
    figures.heat = OSError("dead sensor")
    sample = sampler.sample()
    assert figures.slow_reads == 2
    assert sample.temperature_c is None
    assert sample.on_battery is False


def test_the_real_machine_answers() -> None:
    """psutil's own figures make sense here: some memory is used, and nobody is busier than the machine."""
    sampler = LoadSampler(callers=lambda: [os.getpid(), 2**22 + 1])
    sampler.sample()
    sum(i * i for i in range(200_000))
    sample = sampler.sample()
    assert sample.memory_rss_bytes > 1 << 20
    assert sample.own_busy_cores >= 0
    assert 0 <= sample.callers_busy_cores <= sample.core_count
    assert 0 <= sample.host_busy_cores <= sample.core_count
    assert sample.throttled is None
    assert Sensors().spent(2**22 + 1) is None
    used = Sensors().spent(os.getpid())
    assert used is not None
    assert used.cpu_s > 0
