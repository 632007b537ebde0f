"""GPUs and NPUs: what is on the PCI bus or in the SoC, which driver holds it, and whether we may open its node.

A device is listed when its hardware is seen, driver or not: "there, but no driver" is worth saying. Which engine can
use it is not known here.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

from inferd_runtime.probe.formats import parse_int, parse_pairs
from inferd_runtime.probe.machine import Device
from inferd_runtime.probe.reader import Node, Reader

_PCI = "/sys/bus/pci/devices"
_VENDORS = {0x10DE: "NVIDIA", 0x8086: "Intel", 0x1002: "AMD", 0x1022: "AMD"}
_GPU_CLASSES = (0x0300, 0x0302, 0x0380)
_NPU_CLASS = 0x1200
_NVRM = re.compile(r"NVRM version:.*?Kernel Module(?: for \S+)?\s+(\d[\w.]*)", re.ASCII)
_TEGRA = {
    "tegra210": "Tegra X1 GPU (Maxwell)",
    "tegra186": "Tegra X2 GPU (Pascal)",
    "tegra194": "Xavier GPU (Volta)",
    "tegra234": "Orin GPU (Ampere)",
    "tegra264": "Thor GPU (Blackwell)",
}
_L4T = re.compile(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class PciFunction:
    """One function on the PCI bus, as its uevent tells it. `kind` is the class without the programming interface."""

    address: str
    vendor: int
    device: int
    kind: int
    driver: str


def parse_pci(address: str, uevent: str | None) -> PciFunction | None:
    """From the text of the function's uevent; None without an id and class."""
    pairs = parse_pairs(uevent, "=")
    try:
        vendor, device = (int(part, 16) for part in pairs["PCI_ID"].split(":"))
        kind = int(pairs["PCI_CLASS"], 16) >> 8
    except (KeyError, ValueError):
        return None
    return PciFunction(address, vendor, device, kind, pairs.get("DRIVER", ""))


def parse_nvidia_version(text: str | None) -> str:
    """The driver's version from /proc/driver/nvidia/version, closed or open module."""
    match = _NVRM.search(text or "")
    return match[1] if match else ""


def parse_tegra(compatible: str | None) -> str:
    """The SoC from the device tree's compatible list: "tegra234"; "" on anything else."""
    match = re.search(r"nvidia,(tegra\d+)", compatible or "", re.ASCII)
    return match[1] if match else ""


def parse_groups(text: str | None) -> dict[int, str]:
    """Group names by number from /etc/group."""
    groups: dict[int, str] = {}
    for line in (text or "").splitlines():
        fields = line.split(":")
        gid = parse_int(fields[2]) if len(fields) > 2 else None
        if gid is not None:
            groups.setdefault(gid, fields[0])
    return groups


def read_devices(reader: Reader) -> tuple[Device, ...]:
    """Every GPU and NPU found: PCI first by address, then what sits in the SoC."""
    functions = []
    for address in reader.names(_PCI, r"[0-9a-f:.]+"):
        kind = (_hex(reader.line(f"{_PCI}/{address}/class")) or 0) >> 8
        if kind in _GPU_CLASSES or kind == _NPU_CLASS:
            function = parse_pci(address, reader.text(f"{_PCI}/{address}/uevent"))
            if function is not None and function.vendor in _VENDORS:
                functions.append(function)
    found = [_pci_device(reader, function) for function in functions]
    return (*found, *_read_tegra(reader), *_read_soc_gpus(reader), *_read_soc_npus(reader))


def explain(path: str, node: Node | None, groups: dict[int, str]) -> str:
    """Why the node does not open; "" when it does."""
    if node is None:
        return f"{path} is missing (in a container: not passed in)"
    if node.error == 0:
        return ""
    group = groups.get(node.gid, str(node.gid))
    if node.error == errno.EACCES:
        advice = f"; add the user to group {group}" if node.mode & 0o060 == 0o060 and node.gid != 0 else ""
        return f"permission denied: {path} (mode {node.mode:04o}, group {group}){advice}"
    if node.error == errno.EPERM:
        return f"not permitted: {path} is closed to this container or unit (device rules)"
    return f"{path}: {os.strerror(node.error)}"


def _pci_device(reader: Reader, function: PciFunction) -> Device:
    if function.kind == _NPU_CLASS:
        return _npu(reader, function)
    return _nvidia(reader, function) if _VENDORS[function.vendor] == "NVIDIA" else _drm(reader, function)


def _npu(reader: Reader, function: PciFunction) -> Device:
    vendor = _VENDORS[function.vendor]
    accels = reader.names(f"{_PCI}/{function.address}/accel", r"accel\d+")
    node = f"/dev/accel/{accels[0]}" if accels else ""
    kind = "npu" if function.driver in ("", "intel_vpu", "amdxdna") else "accelerator"
    return _device(reader, function, kind, f"{vendor} NPU {_id(function)}", node, is_integrated=True)


def _drm(reader: Reader, function: PciFunction) -> Device:
    folder = f"{_PCI}/{function.address}"
    renders = reader.names(f"{folder}/drm", r"renderD\d+")
    node = f"/dev/dri/{renders[0]}" if renders else ""
    vram = parse_int(reader.text(f"{folder}/mem_info_vram_total"))
    vendor = _VENDORS[function.vendor]
    # Intel's integrated GPU has sat at 00:02.0 for as long as there has been one.
    is_integrated = vendor == "Intel" and function.address.endswith(":00:02.0")
    name = reader.line(f"{folder}/product_name") or f"{vendor} GPU {_id(function)}"
    return _device(reader, function, "gpu", name, node, is_integrated=is_integrated, memory_bytes=vram or None)


def _nvidia(reader: Reader, function: PciFunction) -> Device:
    facts = parse_pairs(reader.text(f"/proc/driver/nvidia/gpus/{function.address}/information"), ":")
    name = facts.get("Model") or f"NVIDIA GPU {_id(function)}"
    if function.driver != "nvidia":
        return _device(reader, function, "gpu", name, "", other="CUDA needs NVIDIA's own driver")
    minor = parse_int(facts.get("Device Minor"))
    node = f"/dev/nvidia{0 if minor is None else minor}"
    version = parse_nvidia_version(reader.text("/proc/driver/nvidia/version"))
    # CUDA makes a missing nvidia-uvm by itself, through nvidia-modprobe; one that is there and closed stops it.
    uvm = ("/dev/nvidia-uvm",) if reader.node("/dev/nvidia-uvm") is not None else ()
    return _device(reader, function, "gpu", name, node, version=version, also=("/dev/nvidiactl", *uvm))


def _read_tegra(reader: Reader) -> list[Device]:
    """The GPU inside a Jetson: driver nvgpu, nodes that changed their place between JetPack 5 and 6."""
    soc = parse_tegra(reader.text("/proc/device-tree/compatible"))
    if not soc:
        return []
    units = reader.names("/sys/class/devfreq", r"[0-9a-f]+\.(gpu|g[a-z]\d+[a-z]|gm20b|gk20a)|gpu-gpc-\d+")
    nodes = ("/dev/nvgpu/igpu0/ctrl", "/dev/nvhost-ctrl-gpu", "/dev/nvidia0")
    looked = [(path, reader.node(path)) for path in nodes]
    node = next((path for path, found in looked if found is not None), "")
    if not units and not node:
        return []
    match = _L4T.search(reader.text("/etc/nv_tegra_release") or "")
    reasons = [explain(path, reader.node(path), _groups(reader)) for path in (node or nodes[0], "/dev/nvmap")]
    reason = next((reason for reason in reasons if reason), "")
    return [
        Device(
            kind="gpu",
            vendor="NVIDIA",
            name=_TEGRA.get(soc, f"{soc} GPU"),
            address=units[0] if units else "",
            driver="nvidia" if node == "/dev/nvidia0" else "nvgpu",
            driver_version=f"L4T {match[1]}.{match[2]}" if match else "",
            node=node,
            may_open=not reason,
            reason=reason,
            is_integrated=True,
        )
    ]


def _read_soc_gpus(reader: Reader) -> list[Device]:
    """GPUs in a SoC that have a render node (v3d, panfrost, msm ...); their PCI kin are listed already."""
    found = []
    for render in reader.names("/sys/class/drm", r"renderD\d+"):
        pairs = parse_pairs(reader.text(f"/sys/class/drm/{render}/device/uevent"), "=")
        vendor, comma, model = pairs.get("OF_COMPATIBLE_0", "").partition(",")
        if comma and "tegra" not in model:
            found.append(_soc_device(reader, "gpu", vendor, model, pairs, f"/dev/dri/{render}"))
    return found


def _read_soc_npus(reader: Reader) -> list[Device]:
    """NPUs in a SoC that use the kernel's accel class (rocket, ethosu ...)."""
    found = []
    for accel in reader.names("/sys/class/accel", r"accel\d+"):
        pairs = parse_pairs(reader.text(f"/sys/class/accel/{accel}/device/uevent"), "=")
        vendor, comma, model = pairs.get("OF_COMPATIBLE_0", "").partition(",")
        if comma:
            found.append(_soc_device(reader, "npu", vendor, model, pairs, f"/dev/accel/{accel}"))
    return found


def _soc_device(reader: Reader, kind: str, vendor: str, model: str, uevent: dict[str, str], path: str) -> Device:
    reason = explain(path, reader.node(path), _groups(reader))
    driver = uevent.get("DRIVER", "")
    return Device(kind, vendor, model, driver=driver, node=path, may_open=not reason, reason=reason, is_integrated=True)


def _device(
    reader: Reader,
    function: PciFunction,
    kind: str,
    name: str,
    node: str,
    *,
    version: str = "",
    also: tuple[str, ...] = (),
    other: str = "",
    is_integrated: bool = False,
    memory_bytes: int | None = None,
) -> Device:
    """The device with the reason why it may not be opened. `also`: further nodes that must open; `other`: a reason."""
    reason = f"no driver is bound to {function.address}" if not function.driver else ""
    if not reason and not node:
        reason = f"driver {function.driver} offers no compute node"
    reasons = [explain(path, reader.node(path), _groups(reader)) for path in (node, *also) if path and not reason]
    reason = "; ".join(part for part in (reason, *reasons, other) if part)
    return Device(
        kind=kind,
        vendor=_VENDORS[function.vendor],
        name=name,
        address=function.address,
        driver=function.driver,
        driver_version=version or reader.line(f"/sys/module/{function.driver}/version"),
        node=node,
        may_open=not reason,
        reason=reason,
        is_integrated=is_integrated,
        memory_bytes=memory_bytes,
    )


def _groups(reader: Reader) -> dict[int, str]:
    return parse_groups(reader.text("/etc/group"))


def _id(function: PciFunction) -> str:
    return f"[{function.vendor:04x}:{function.device:04x}]"


def _hex(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None
