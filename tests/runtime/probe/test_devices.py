"""GPUs and NPUs from small trees: what is there, who drives it, and why it may not be opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inferd_runtime.probe.devices import read_devices
from inferd_runtime.probe.machine import Device
from tests.fixtures.machines.compose import node, pci
from tests.fixtures.machines.replay import materialise

PCI = "/sys/bus/pci/devices"


def devices(root: Path, files: dict[str, str], folders: list[str], nodes: dict[str, Any]) -> tuple[Device, ...]:
    return read_devices(materialise({"files": files, "folders": folders, "nodes": nodes}, root))


def test_intel_npu(tmp_path: Path) -> None:
    """A Meteor Lake NPU is an NPU with its driver, version and accel node."""
    files = pci("0000:00:0b.0", "8086:7D1D", "120000", "intel_vpu") | {"/sys/module/intel_vpu/version": "1.0.0\n"}
    nodes = {"/dev/accel/accel0": node("0660", 44)}
    (npu,) = devices(tmp_path, files, [f"{PCI}/0000:00:0b.0/accel/accel0"], nodes)
    assert (npu.kind, npu.name, npu.driver, npu.driver_version) == (
        "npu",
        "Intel NPU [8086:7d1d]",
        "intel_vpu",
        "1.0.0",
    )
    assert (npu.node, npu.may_open) == ("/dev/accel/accel0", True)


def test_npu_without_a_driver(tmp_path: Path) -> None:
    """Hardware that no driver holds is listed with just that reason."""
    (npu,) = devices(tmp_path, pci("0000:00:0b.0", "8086:7D1D", "120000", ""), [], {})
    assert npu.reason == "no driver is bound to 0000:00:0b.0"
    assert not npu.may_open


def test_amd_gpu_tells_its_memory(tmp_path: Path) -> None:
    """amdgpu publishes the card's memory and name."""
    folder = f"{PCI}/0000:03:00.0"
    files = pci("0000:03:00.0", "1002:744C", "030000", "amdgpu")
    files |= {f"{folder}/mem_info_vram_total": "25753026560\n", f"{folder}/product_name": "Radeon RX 7900 XTX\n"}
    nodes = {"/dev/dri/renderD129": node("0666", 0)}
    (gpu,) = devices(tmp_path, files, [f"{folder}/drm/card1", f"{folder}/drm/renderD129"], nodes)
    assert (gpu.name, gpu.memory_bytes, gpu.node) == ("Radeon RX 7900 XTX", 25753026560, "/dev/dri/renderD129")
    assert not gpu.is_integrated


def test_nouveau_cannot_compute(tmp_path: Path) -> None:
    """An NVIDIA card under nouveau is there, and the reason names the driver that is missing."""
    (gpu,) = devices(tmp_path, pci("0000:01:00.0", "10DE:2503", "030000", "nouveau"), [], {})
    assert not gpu.may_open
    assert "CUDA needs NVIDIA's own driver" in gpu.reason


def test_older_jetson_nodes(tmp_path: Path) -> None:
    """JetPack 5 has its GPU node elsewhere; a closed nvmap makes the GPU useless."""
    files = {"/proc/device-tree/compatible": "nvidia,p3668\0nvidia,tegra194\0"}
    nodes = {"/dev/nvhost-ctrl-gpu": node("0660", 44), "/dev/nvmap": node("0660", 44, "EACCES")}
    (gpu,) = devices(tmp_path, files, ["/sys/class/devfreq/17000000.gv11b"], nodes)
    assert (gpu.name, gpu.node) == ("Xavier GPU (Volta)", "/dev/nvhost-ctrl-gpu")
    assert gpu.reason.startswith("permission denied: /dev/nvmap")


def test_emulated_displays_are_no_gpus(tmp_path: Path) -> None:
    """A virtual machine's VGA adapter is not offered for inference."""
    assert devices(tmp_path, pci("0000:00:02.0", "1234:1111", "030000", "bochs-drm"), [], {}) == ()


def test_soc_npu(tmp_path: Path) -> None:
    """An NPU in a SoC shows in the accel class without PCI."""
    files = {"/sys/class/accel/accel0/device/uevent": "DRIVER=rocket\nOF_COMPATIBLE_0=rockchip,rk3588-rknn-core\n"}
    (npu,) = devices(tmp_path, files, [], {})
    assert (npu.kind, npu.vendor, npu.driver) == ("npu", "rockchip", "rocket")
    assert npu.reason == "/dev/accel/accel0 is missing (in a container: not passed in)"
