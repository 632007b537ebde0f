"""Which processor this is and which instructions it has for INT8: /proc/cpuinfo, on x86, ARM and whatever else.

Flags are those that every core has, so that a thread may land anywhere. ARM processors write numbers, not names; the
tables turn the usual ones into words and leave the others as numbers.
"""

from __future__ import annotations

from inferd_runtime.probe.formats import parse_int, parse_pairs
from inferd_runtime.probe.machine import Core, Cpu
from inferd_runtime.probe.reader import Reader

# As the kernel writes them -> as we call them. What is not here has no bearing on INT8.
ISA_FLAGS = {
    "ssse3": "ssse3", "sse4_1": "sse4_1", "avx": "avx", "fma": "fma", "f16c": "f16c", "avx2": "avx2",
    "avx_vnni": "avx_vnni", "avx512f": "avx512f", "avx512bw": "avx512bw", "avx512vl": "avx512vl",
    "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16", "avx512_fp16": "avx512_fp16",
    "amx_tile": "amx_tile", "amx_int8": "amx_int8", "amx_bf16": "amx_bf16", "amx_fp16": "amx_fp16",
    "asimd": "neon", "neon": "neon", "asimdhp": "fp16", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16",
    "sve": "sve", "sve2": "sve2", "svei8mm": "svei8mm", "svebf16": "svebf16", "sme": "sme", "sme2": "sme2",
}  # fmt: skip

_ARM_VENDORS = {
    0x41: "ARM", 0x42: "Broadcom", 0x43: "Cavium", 0x46: "Fujitsu", 0x48: "HiSilicon", 0x4E: "NVIDIA", 0x50: "APM",
    0x51: "Qualcomm", 0x53: "Samsung", 0x56: "Marvell", 0x61: "Apple", 0x6D: "Microsoft", 0x70: "Phytium",
    0xC0: "Ampere",
}  # fmt: skip

_ARM_CORES = {
    0xC07: "Cortex-A7", 0xC0F: "Cortex-A15", 0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55",
    0xD07: "Cortex-A57", 0xD08: "Cortex-A72", 0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77", 0xD40: "Neoverse-V1", 0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE",
    0xD44: "Cortex-X1", 0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse-N2",
    0xD4B: "Cortex-A78C", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3", 0xD4F: "Neoverse-V2", 0xD80: "Cortex-A520",
    0xD81: "Cortex-A720", 0xD82: "Cortex-X4", 0xD84: "Neoverse-V3", 0xD85: "Cortex-X925", 0xD87: "Cortex-A725",
    0xD8E: "Neoverse-N3",
}  # fmt: skip


def parse_cpuinfo(text: str | None) -> list[dict[str, str]]:
    """One dict to each processor block. A last block without a number (Hardware, Model) is left out."""
    blocks = [parse_pairs(block, ":") for block in (text or "").split("\n\n")]
    return [block for block in blocks if parse_int(block.get("processor")) is not None]


def common_flags(blocks: list[dict[str, str]]) -> tuple[str, ...]:
    """The INT8-relevant flags that all blocks share, by our names."""
    sets = [set((b.get("flags") or b.get("Features") or "").split()) for b in blocks]
    shared = set.intersection(*sets) if sets else set()
    return tuple(sorted({ours for kernel, ours in ISA_FLAGS.items() if kernel in shared}))


def guess_arch(blocks: list[dict[str, str]]) -> str:
    """The machine's architecture as cpuinfo shows it, for kernels that have no /proc/sys/kernel/arch."""
    first = blocks[0] if blocks else {}
    if "flags" in first:
        return "x86_64" if "lm" in first["flags"].split() else "i686"
    if "Features" in first:
        return "aarch64" if "asimd" in first["Features"].split() else "armv7l"
    return "riscv64" if first.get("isa", "").startswith("rv64") else ""


def name_cpu(blocks: list[dict[str, str]]) -> tuple[str, str]:
    """(model, vendor). Different ARM cores are named together: "Cortex-A76 + Cortex-A55"."""
    first = blocks[0] if blocks else {}
    if "CPU part" in first:
        # The first of the kernel's numbers is often a small core; the larger part number is the younger, bigger one.
        parts = sorted({_arm_number(b.get("CPU part")) for b in blocks}, reverse=True)
        model = " + ".join(_ARM_CORES.get(part, f"part {part:#x}") for part in parts)
        vendor = _arm_number(first.get("CPU implementer"))
        if vendor != 0x41:
            model = f"{_ARM_VENDORS.get(vendor, 'ARM')} {' + '.join(f'part {part:#x}' for part in parts)}"
        return model, _ARM_VENDORS.get(vendor, f"implementer {vendor:#x}")
    model = first.get("model name") or first.get("uarch") or first.get("cpu model") or first.get("cpu") or ""
    return " ".join(model.split()), first.get("vendor_id", "")


def read_cpu(reader: Reader, cores: tuple[Core, ...]) -> Cpu:
    """The processor; counts come from the cores found."""
    blocks = parse_cpuinfo(reader.text("/proc/cpuinfo"))
    model, vendor = name_cpu(blocks)
    return Cpu(
        model=model,
        vendor=vendor,
        arch=reader.line("/proc/sys/kernel/arch") or guess_arch(blocks),
        flags=common_flags(blocks),
        sockets=max(1, len({core.package for core in cores})),
        physical_cores=max(1, len({(core.package, core.physical) for core in cores})),
        logical_cores=max(1, len(cores)),
    )


def _arm_number(text: str | None) -> int:
    try:
        return int(text or "0", 16) & 0xFFFF
    except ValueError:
        return 0
