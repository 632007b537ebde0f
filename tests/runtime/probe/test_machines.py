"""Recorded and composed machines: each tree gives the Machine that is written down beside it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from inferd_runtime.probe import Machine, probe
from tests.fixtures.machines import compose
from tests.fixtures.machines.replay import FOLDER, expected, load_tree, machine_names, replay


def found(name: str, root: Path) -> Machine:
    return replay(load_tree(name), root)


@pytest.mark.parametrize("name", machine_names())
def test_every_tree_gives_its_machine(name: str, tmp_path: Path) -> None:
    """What the probe finds in a recorded tree is the Machine on record, to the last field."""
    assert found(name, tmp_path).to_dict() == expected(name)


@pytest.mark.parametrize("name", sorted(compose.MACHINES))
def test_composed_trees_are_up_to_date(name: str) -> None:
    """The stored tree of a composed machine is what its facts compose to, and says that it is composed."""
    tree = compose.MACHINES[name]()
    assert (FOLDER / name / "tree.json").read_text() == compose.show(tree)
    assert tree["note"].startswith("Composed.")


def test_hybrid_prefers_performance_then_efficiency_then_siblings(tmp_path: Path) -> None:
    """On 8P+4E with SMT the order is: one thread of each P core, the E cores, the second threads."""
    machine = found("intel-i7-12700", tmp_path)
    assert machine.allowed_cores == (*range(0, 16, 2), *range(16, 20), *range(1, 16, 2))
    assert machine.is_hybrid
    assert machine.allowed_physical == 12
    assert "avx_vnni" in machine.cpu.flags


def test_n100_has_vnni_and_a_gpu_that_a_group_is_needed_for(tmp_path: Path) -> None:
    """The E cores of an N100 are all it has, so they are performance cores; the refusal names the group to join."""
    machine = found("intel-n100", tmp_path)
    assert not machine.is_hybrid
    assert machine.cpu.flags == ("avx", "avx2", "avx_vnni", "f16c", "fma", "sse4_1", "ssse3")
    (gpu,) = machine.devices
    assert not gpu.may_open
    assert "add the user to group render" in gpu.reason
    assert machine.board == ""  # "Default string" is no name


def test_raspberry_pi_names_its_cores_and_has_dotprod(tmp_path: Path) -> None:
    """A Raspberry Pi 5 is four Cortex-A76 with dotprod and without i8mm."""
    machine = found("raspberry-pi-5", tmp_path)
    assert (machine.cpu.model, machine.cpu.arch) == ("Cortex-A76", "aarch64")
    assert machine.cpu.flags == ("dotprod", "fp16", "neon")
    assert machine.board == "Raspberry Pi 5 Model B Rev 1.0"


def test_jetson_has_its_gpu_without_pci(tmp_path: Path) -> None:
    """A Jetson's GPU is found in the SoC, with L4T as the driver's version; cores that are off do not count."""
    machine = found("jetson-agx-orin", tmp_path)
    (gpu,) = machine.devices
    assert (gpu.name, gpu.driver, gpu.driver_version) == ("Orin GPU (Ampere)", "nvgpu", "L4T 36.3.0")
    assert gpu.may_open
    assert machine.core_budget == 8


@pytest.mark.parametrize(("name", "version", "cores"), [("container-cgroup-v2", 2, 8), ("container-cgroup-v1", 1, 4)])
def test_a_quota_limits_the_budget_and_says_so(name: str, version: int, cores: int, tmp_path: Path) -> None:
    """A quota of 1.5 CPUs is a budget of 1.5 and one usable core, whatever the affinity shows."""
    machine = found(name, tmp_path)
    assert machine.core_budget == 1.5
    assert machine.usable_cores == 1
    assert len(machine.allowed_cores) == cores
    assert machine.core_reason.startswith(f"quota 1.5 CPUs (cgroup v{version} /sys/fs/cgroup")
    assert machine.core_reason.endswith(f"limits {cores} allowed cores")


def test_memory_limits_are_the_tightest_and_idle_cache_is_free(tmp_path: Path) -> None:
    """Usable memory is the cgroup's, even a hidden parent's; file cache that can be dropped counts as available."""
    v1 = found("container-cgroup-v1", tmp_path / "v1").memory
    assert v1.usable_bytes == 768 << 20
    v2 = found("container-cgroup-v2", tmp_path / "v2").memory
    assert (v2.usable_bytes, v2.available_bytes) == (2 << 30, (2 << 30) - (300 << 20) + (50 << 20))


def test_nvidia_gpu_comes_with_driver_and_node(tmp_path: Path) -> None:
    """An NVIDIA card is named by its driver, and is usable when its nodes open."""
    (gpu,) = found("nvidia-rtx-3060", tmp_path).devices
    assert (gpu.name, gpu.driver_version, gpu.node) == ("NVIDIA GeForce RTX 3060", "550.120", "/dev/nvidia0")
    assert gpu.may_open


def test_nvidia_uvm_may_be_made_later(tmp_path: Path) -> None:
    """CUDA makes nvidia-uvm when it is first used: missing is fine, closed is not."""
    tree = load_tree("nvidia-rtx-3060")
    uvm = tree["nodes"].pop("/dev/nvidia-uvm")
    assert replay(tree, tmp_path).devices[0].may_open
    tree["nodes"]["/dev/nvidia-uvm"] = uvm | {"error": "EACCES"}
    assert "/dev/nvidia-uvm" in replay(tree, tmp_path).devices[0].reason


def test_nvidia_gpu_without_its_control_node_is_explained(tmp_path: Path) -> None:
    """A card whose nodes were not passed into the container is seen, and the missing nodes are named."""
    tree = load_tree("nvidia-rtx-3060")
    tree["nodes"] = {"/dev/nvidia0": tree["nodes"]["/dev/nvidia0"] | {"error": "EPERM"}}
    (gpu,) = replay(tree, tmp_path).devices
    assert not gpu.may_open
    assert "/dev/nvidia0 is closed to this container" in gpu.reason
    assert "/dev/nvidiactl is missing" in gpu.reason


def test_digest_follows_the_plan_relevant_facts_only(tmp_path: Path) -> None:
    """Free memory and the kernel leave the digest alone; cores, flags, driver and quota change it."""
    machine = found("nvidia-rtx-3060", tmp_path)
    memory = dataclasses.replace(machine.memory, available_bytes=1)
    assert dataclasses.replace(machine, memory=memory, kernel="7.0").digest == machine.digest
    gpu = dataclasses.replace(machine.devices[0], driver_version="560.1")
    others = (
        dataclasses.replace(machine, allowed_cores=(0, 1)),
        dataclasses.replace(machine, core_budget=1.5),
        dataclasses.replace(machine, cpu=dataclasses.replace(machine.cpu, flags=("avx2",))),
        dataclasses.replace(machine, devices=(gpu,)),
    )
    assert len({machine.digest, *(other.digest for other in others)}) == 5


def test_affinity_narrows_the_cores_and_frees_second_threads(tmp_path: Path) -> None:
    """Bound to second threads only, each of them is a whole core; the reason names the affinity."""
    tree = load_tree("nvidia-rtx-3060") | {"affinity": "8-11"}
    machine = replay(tree, tmp_path)
    assert machine.allowed_cores == (8, 9, 10, 11)
    assert machine.allowed_physical == 4
    assert machine.core_reason == "affinity 8-11 leaves 4 allowed cores of 16"


def test_an_empty_root_is_a_machine_too(tmp_path: Path) -> None:
    """With nothing to read at all there is still a Machine, with the cores of the affinity."""
    machine = probe(tmp_path, affinity={2, 3})
    assert machine.allowed_cores == (2, 3)
    assert machine.core_budget == 2
    assert machine.devices == ()
    assert machine.memory.limit is None


def test_this_machine_probes_and_renders() -> None:
    """The real machine gives a Machine whose plain form is JSON and whose digest stays the same."""
    machine = probe()
    plain = json.loads(json.dumps(machine.to_dict()))
    assert plain["digest"] == probe().digest
    assert plain["usable_cores"] >= 1
    assert plain["kernel"]
