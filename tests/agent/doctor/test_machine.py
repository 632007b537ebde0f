"""What the machine gives against what is wanted of it, on recorded machines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inferd_agent.doctor.finding import Finding, Level
from inferd_agent.doctor.machine import (
    EngineFacts,
    Engines,
    PlanFacts,
    Quota,
    check_cores,
    check_devices,
    check_engines,
    check_instructions,
    read_engines,
    read_quota,
)
from inferd_runtime import Machine
from inferd_runtime.probe import Device
from tests.fixtures.machines.replay import load_tree, replay

CPU_ONLY = Engines((EngineFacts("onnxruntime", "1.22", ("cpu",)), EngineFacts("openvino", "2025.2", ("cpu",))))
NVIDIA = Device("gpu", "NVIDIA", "RTX 3060", driver="nvidia", driver_version="550", may_open=True)


@pytest.fixture
def n100(tmp_path: Path) -> Machine:
    return replay(load_tree("intel-n100"), tmp_path)


def bad(findings: object) -> list[Finding]:
    return [each for each in findings if each.level is not Level.OK]  # type: ignore[attr-defined]


def test_int8_instructions_are_asked_for(n100: Machine) -> None:
    """A CPU with VNNI is fine; one without any dot product is a warning that says what INT8 is worth there."""
    assert not bad(check_instructions(n100))
    (found,) = bad(check_instructions(replace(n100, cpu=replace(n100.cpu, flags=("avx2",)))))
    assert "no faster than float" in found.text


@pytest.mark.parametrize(
    ("quota", "plans", "configured", "said"),
    [
        (Quota(), [PlanFacts("m", 1, 4)], 0, []),
        (Quota(2.0), [PlanFacts("m", 1, 4)], 0, ["m is planned for 1 x 4 threads, but the unit's CPUQuota allows 2"]),
        (Quota(2.0), [], 3, ["runtime.cores is 3"]),
        (Quota(0.5), [], 0, ["less than one core"]),
        (Quota(2.0, 1000, 49), [], 0, []),
        (Quota(2.0, 1000, 400), [], 0, ["in 40% of its periods"]),
    ],
)
def test_cores(n100: Machine, quota: Quota, plans: list[PlanFacts], configured: int, said: list[str]) -> None:
    """A quota below the plan, below the setting, below one core, or that bites: each is a warning of its own."""
    found = bad(check_cores(n100, quota, plans, configured))
    assert len(found) == len(said)
    assert all(text in finding.text and finding.fix for text, finding in zip(said, found, strict=True)), found


def test_engines() -> None:
    """One of two is enough; none is an error, and so is one that does not start."""
    assert not bad(check_engines(CPU_ONLY))
    half = Engines(CPU_ONLY.here[:1], {"openvino": "openvino is not installed"})
    assert not bad(check_engines(half))
    (found,) = bad(check_engines(Engines((), {"openvino": "openvino is not installed"})))
    assert found.level is Level.ERROR
    (found,) = bad(check_engines(Engines((EngineFacts("openvino", problem="libtbb.so is missing"),))))
    assert (found.level, "libtbb.so" in found.text) == (Level.ERROR, True)


@pytest.mark.parametrize(
    ("device", "devices", "said"),
    [
        (NVIDIA, ("cpu", "cuda:0"), ""),
        (NVIDIA, ("cpu",), "no engine here uses it"),
        (replace(NVIDIA, driver=""), ("cpu",), "has no driver"),
        (replace(NVIDIA, may_open=False, reason="permission denied"), ("cpu", "cuda:0"), "permission denied"),
        (Device("gpu", "Intel", "Iris", driver="i915", may_open=True), ("cpu",), "no engine here uses it"),
        (Device("gpu", "Intel", "Iris", driver="i915", may_open=True), ("cpu", "gpu.0"), ""),
        (Device("npu", "Intel", "NPU", driver="intel_vpu", may_open=True), ("cpu", "gpu"), "no engine here uses it"),
        (Device("gpu", "AMD", "Vega", driver="amdgpu", may_open=True), ("cpu",), ""),
        (None, ("cpu", "cuda:0"), "no NVIDIA GPU"),
        (None, ("cpu",), ""),
    ],
)
def test_devices_against_engines(n100: Machine, device: Device | None, devices: tuple[str, ...], said: str) -> None:
    """Driver, access and engine must come together; hardware that no engine knows is no fault."""
    machine = replace(n100, devices=(device,) if device else ())
    found = bad(check_devices(machine, Engines((EngineFacts("e", "1", devices),))))
    assert [said in finding.text and bool(finding.fix) for finding in found] == ([True] if said else []), found


def test_the_quota_is_read_from_the_units_group(tmp_path: Path) -> None:
    """systemd names the group; its statistics are in either version's place, and absence is no failure."""
    assert read_quota("/system.slice/inferd.service", 2.0, tmp_path) == Quota(2.0)
    folder = tmp_path / "sys/fs/cgroup/system.slice/inferd.service"
    folder.mkdir(parents=True)
    (folder / "cpu.stat").write_text("usage_usec 5\nnr_periods 200\nnr_throttled 50\n")
    assert read_quota("/system.slice/inferd.service", 2.0, tmp_path) == Quota(2.0, 200, 50)


def test_this_machines_engines_are_read() -> None:
    """Both engines of the tests' environment are found with their devices."""
    found = {each.name: each for each in read_engines().here}
    assert set(found) == {"onnxruntime", "openvino"}
    assert all("cpu" in each.devices and not each.problem for each in found.values())
