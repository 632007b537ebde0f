"""The probe's small parsers: what they read, and that garbage gives nothing instead of an exception."""

from __future__ import annotations

import errno

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferd_runtime.probe.cpu import common_flags, guess_arch, name_cpu, parse_cpuinfo
from inferd_runtime.probe.devices import explain, parse_groups, parse_nvidia_version, parse_pci, parse_tegra
from inferd_runtime.probe.formats import (
    MAX_CPUS,
    parse_cpu_list,
    parse_int,
    parse_pairs,
    parse_size_bytes,
    show_cpu_list,
)
from inferd_runtime.probe.load import parse_cpu_stat, parse_psi
from inferd_runtime.probe.machine import EFFICIENCY, PERFORMANCE
from inferd_runtime.probe.memory import parse_meminfo
from inferd_runtime.probe.reader import Node
from inferd_runtime.probe.topology import classify
from tests.fixtures.machines.compose import arm_cpuinfo, x86_cpuinfo


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0-3,8\n", {0, 1, 2, 3, 8}),
        ("", set()),
        ("\n", set()),
        (None, set()),
        ("5", {5}),
        ("0-7:1/2", {0, 2, 4, 6}),
        ("3-1", set()),
        ("a,1,b-c,2-", {1}),
        (" 0 , 2 \n", {0, 2}),
    ],
)
def test_cpu_lists(text: str | None, cpus: set[int]) -> None:
    """The kernel's list format, strides and odd spacing included."""
    assert parse_cpu_list(text) == cpus


@given(st.sets(st.integers(0, MAX_CPUS - 1), max_size=60))
def test_cpu_lists_round_trip(cpus: set[int]) -> None:
    """What is shown is read back the same."""
    assert parse_cpu_list(show_cpu_list(cpus)) == cpus


@example("0-999999")
@example("1:0/0")
@given(st.text() | st.from_regex(r"[0-9,:/\-]*"))
def test_cpu_list_garbage_costs_nothing(text: str) -> None:
    """A list that claims a million CPUs is bounded."""
    assert len(parse_cpu_list(text)) <= MAX_CPUS


@pytest.mark.parametrize(
    ("text", "size"),
    [("48K\n", 49152), ("32768 kB", 32 << 20), ("4M", 4 << 20), ("12", 12), ("", None), ("1.5M", None), ("K", None)],
)
def test_sizes(text: str, size: int | None) -> None:
    """Binary units as sysfs and meminfo write them."""
    assert parse_size_bytes(text) == size


@given(st.text())
def test_garbage_never_raises(text: str) -> None:
    """No parser fails, whatever it is given."""
    parse_int(text)
    parse_size_bytes(text)
    parse_pairs(text, ":")
    parse_meminfo(text)
    blocks = parse_cpuinfo(f"processor: 0\nCPU part: {text}\nCPU implementer: {text}\nflags: {text}\n\n{text}")
    common_flags(blocks)
    guess_arch(blocks)
    name_cpu(blocks)
    parse_pci("x", f"PCI_ID={text}\nPCI_CLASS={text}")
    parse_nvidia_version(text)
    parse_tegra(text)
    parse_groups(text)
    parse_psi(text)
    parse_psi(f"some avg10={text}")
    parse_cpu_stat(text)


def test_flags_are_those_that_all_cores_have() -> None:
    """A flag that one core lacks is no flag: a thread may land there."""
    text = x86_cpuinfo("x", "y", "lm avx2 avx512_vnni amx_tile amx_int8 amx_bf16", 1)
    both = parse_cpuinfo(text + x86_cpuinfo("x", "y", "lm avx2 amx_int8", 1))
    assert common_flags(parse_cpuinfo(text)) == ("amx_bf16", "amx_int8", "amx_tile", "avx2", "avx512_vnni")
    assert common_flags(both) == ("amx_int8", "avx2")


def test_arm_names_and_flags() -> None:
    """ARM's dot product, matrix, SVE and bf16 features come under their common names; big and little are named."""
    blocks = parse_cpuinfo(arm_cpuinfo(["0xd05", "0xd0b"], "asimd asimdhp asimddp i8mm bf16 sve svei8mm"))
    assert name_cpu(blocks) == ("Cortex-A76 + Cortex-A55", "ARM")
    assert common_flags(blocks) == ("bf16", "dotprod", "fp16", "i8mm", "neon", "sve", "svei8mm")
    assert guess_arch(blocks) == "aarch64"


def test_unknown_arm_parts_stay_numbers() -> None:
    """A part that is in no table is shown as its number."""
    (block,) = parse_cpuinfo(arm_cpuinfo(["0xfff"], "asimd"))
    assert name_cpu([block]) == ("part 0xfff", "ARM")
    assert name_cpu([block | {"CPU implementer": "0x61"}]) == ("Apple part 0xfff", "Apple")


def test_big_little_by_capacity() -> None:
    """Without Intel's lists the scheduler's capacities tell; a middle core counts as fast."""
    kinds = classify(range(4), capacities={0: 325, 1: 325, 2: 870, 3: 1024})
    assert [kinds[cpu] for cpu in range(4)] == [EFFICIENCY, EFFICIENCY, PERFORMANCE, PERFORMANCE]


def test_big_little_by_clock_only_when_clear() -> None:
    """Clocks tell where nothing else does; a favoured core that is some percent faster makes no hybrid."""
    assert classify(range(2), clocks_khz={0: 4_900_000, 1: 3_600_000})[1] == EFFICIENCY
    assert classify(range(2), clocks_khz={0: 4_900_000, 1: 4_700_000})[1] == PERFORMANCE


def test_meminfo_of_an_old_kernel() -> None:
    """Without MemAvailable, free and cached memory stand in."""
    assert parse_meminfo("MemTotal: 100 kB\nMemFree: 10 kB\nCached: 20 kB\n") == (102400, 30720)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024", "550.54.14"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  555.58  Release Build", "555.58"),
        ("", ""),
    ],
)
def test_nvidia_versions(text: str, version: str) -> None:
    """The closed and the open module write their version in different places."""
    assert parse_nvidia_version(text) == version


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (None, "is missing"),
        (Node(0o666, 0, 0, 0), ""),
        (Node(0o660, 0, 44, errno.EACCES), "add the user to group video"),
        (Node(0o600, 0, 0, errno.EACCES), "mode 0600"),
        (Node(0o666, 0, 0, errno.EPERM), "device rules"),
        (Node(0o666, 0, 0, errno.EIO), "Input/output error"),
    ],
)
def test_refusals_are_explained(node: Node | None, words: str) -> None:
    """Each way a node can refuse has its own sentence, and success has none."""
    reason = explain("/dev/x", node, parse_groups("video:x:44:me\n"))
    assert words in reason
    assert bool(reason) == bool(words)


def test_psi_and_throttling_texts() -> None:
    """Pressure is the time that some waited; throttling needs both counters."""
    assert parse_psi("some avg10=2.14 avg60=1.64 avg300=0.46 total=5\nfull avg10=9.00 total=3") == 5
    assert parse_cpu_stat("nr_periods 10\nnr_throttled 3\nthrottled_time 5") == (10, 3)
    assert parse_cpu_stat("usage_usec 3") is None
