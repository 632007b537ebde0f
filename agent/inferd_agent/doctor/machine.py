"""The machine under the models: instructions for INT8, cores and quotas against plans, engines, drivers and GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inferd_agent.doctor.finding import Finding, error, ok, warning
from inferd_runtime import Machine, open_engines

_INT8_FLAGS = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "dotprod", "i8mm", "svei8mm"})
_THROTTLED_SHARE = 0.05
_FEWEST_PERIODS = 100


@dataclass(frozen=True, slots=True)
class _User:
    """By which engine devices a kind of hardware is used, and what to do where none of them is there."""

    devices: frozenset[str]
    fix: str


_USERS = {
    ("NVIDIA", "gpu"): _User(
        frozenset({"cuda", "tensorrt"}),
        "install inferd[cuda] in place of inferd[cpu]; its CUDA must fit the driver (inferd probe shows both)",
    ),
    ("Intel", "gpu"): _User(frozenset({"gpu"}), "install the compute runtime (Debian: intel-opencl-icd)"),
    ("Intel", "npu"): _User(frozenset({"npu"}), "install the NPU's user-space driver (intel-driver-compiler-npu)"),
}


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine that is installed; `problem` is why it does not start."""

    name: str
    version: str = ""
    devices: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """How many cores a model that serves wants at once."""

    model: str
    streams: int
    threads: int


@dataclass(frozen=True, slots=True)
class Quota:
    """A CPU quota that the daemon's control group has, in cores, and in how many of its periods it was stopped."""

    cores: float | None = None
    periods: int = 0
    throttled: int = 0


@dataclass(frozen=True, slots=True)
class Engines:
    """Those that are here, and for the others why not."""

    here: tuple[EngineFacts, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


def read_engines() -> Engines:
    """Asks every engine for its devices, which loads its library."""
    here, missing = open_engines()
    found = []
    for name, engine in here.items():
        try:
            found.append(EngineFacts(name, engine.version, engine.devices()))
        except Exception as failure:  # a broken library says so in its own ways
            found.append(EngineFacts(name, problem=" ".join(str(failure).split())[:300]))
    return Engines(tuple(found), missing)


def read_quota(control_group: str, cores: float | None, root: Path = Path("/")) -> Quota:
    """The daemon's quota with its statistics; `control_group` as systemd calls it, such as /system.slice/x.service."""
    for mount in ("sys/fs/cgroup", "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpu"):
        try:
            text = (root / mount / control_group.strip("/") / "cpu.stat").read_text("ascii")
        except (OSError, UnicodeDecodeError):
            continue
        counts = {name: int(value) for name, _, value in (line.partition(" ") for line in text.splitlines())
                  if value.isdigit()}  # fmt: skip
        return Quota(cores, counts.get("nr_periods", 0), counts.get("nr_throttled", 0))
    return Quota(cores)


def check_instructions(machine: Machine) -> Iterator[Finding]:
    """Whether INT8 is worth anything here."""
    found = sorted(_INT8_FLAGS & set(machine.cpu.flags))
    name = machine.cpu.model or machine.cpu.arch or "this CPU"
    if found:
        yield ok("instructions", f"{name} multiplies INT8 with {', '.join(found)}")
    else:
        yield warning(
            "instructions",
            f"{name} has no instruction for INT8 dot products that is known here; INT8 may be no faster than float",
            "let inferd measure (inferd plan MODEL); in a virtual machine pass the host's CPU flags through",
        )


def check_cores(machine: Machine, quota: Quota, plans: Iterable[PlanFacts], configured: int) -> Iterator[Finding]:
    """What may be used against what was asked for and planned."""
    cores = machine.core_budget if quota.cores is None else min(machine.core_budget, quota.cores)
    reason = machine.core_reason if cores == machine.core_budget else f"the unit's CPUQuota allows {cores:g} cores"
    if cores < 1:
        yield warning(
            "cores", f"{reason}: less than one core, so every inference is stopped now and then",
            "give the daemon at least a whole core (CPUQuota=100%, or the container's limit)",
        )  # fmt: skip
    if configured > cores:
        yield warning(
            "cores", f"runtime.cores is {configured}, but {reason}", f"set runtime.cores to {max(1, int(cores))}"
        )
    too_wide = [each for each in plans if each.streams * each.threads > max(1.0, cores)]
    for each in too_wide:
        yield warning(
            "cores", f"{each.model} is planned for {each.streams} x {each.threads} threads, but {reason}",
            f"measure it again: inferd plan {each.model}",
        )  # fmt: skip
    if quota.periods >= _FEWEST_PERIODS and quota.throttled > _THROTTLED_SHARE * quota.periods:
        share = quota.throttled / quota.periods
        yield warning(
            "cores",
            f"the quota stopped the daemon in {share:.0%} of its periods",
            "raise CPUQuota or lower runtime.cores",
        )
    if cores >= 1 and configured <= cores and not too_wide:
        yield ok("cores", reason)


def check_engines(engines: Engines) -> Iterator[Finding]:
    """At least one that starts."""
    for each in engines.here:
        if each.problem:
            yield error(
                "engines", f"{each.name} does not start: {each.problem}", "install it again: pip install 'inferd[cpu]'"
            )
        else:
            yield ok("engines", f"{each.name} {each.version} on {', '.join(each.devices)}")
    for name, reason in engines.missing.items():
        if engines.here:
            yield ok("engines", f"{reason}; models that only {name} reads are not served")
        else:
            yield error("engines", f"{name}: {reason}", "pip install 'inferd[cpu]', or 'inferd[cuda]' for NVIDIA GPUs")


def check_devices(machine: Machine, engines: Engines) -> Iterator[Finding]:
    """Every GPU and NPU that an engine could use: driver, access, and an engine that does; CUDA only with a GPU."""
    usable = {device.partition(":")[0].partition(".")[0] for engine in engines.here for device in engine.devices}
    for device in machine.devices:
        name = f"{device.vendor} {device.name}"
        wanted = _USERS.get((device.vendor, device.kind))
        if wanted is None:
            yield ok("devices", f"{name}: no engine of inferd uses it; models run on the CPU")
        elif not device.driver:
            yield warning("devices", f"{name} has no driver", "install its driver, or ignore it and run on the CPU")
        elif not device.may_open:
            yield warning("devices", f"{name} cannot be used: {device.reason}", _access(device.node))
        elif wanted.devices.isdisjoint(usable):
            yield warning("devices", f"{name} has a driver, but no engine here uses it", wanted.fix)
        else:
            yield ok("devices", f"{name}, driver {device.driver} {device.driver_version}".rstrip())
    has_cuda = "cuda" in usable or "tensorrt" in usable
    if has_cuda and not any(device.vendor == "NVIDIA" for device in machine.devices):
        yield warning(
            "devices", "ONNX Runtime lists CUDA, but there is no NVIDIA GPU to be seen",
            "install inferd[cpu] in place of inferd[cuda], or pass the GPU through to this machine",
        )  # fmt: skip
    elif not machine.devices:
        yield ok("devices", "no GPU and no NPU; models run on the CPU")


def _access(node: str) -> str:
    return f"give the daemon's user the group of {node or 'its node in /dev'} and its unit the GPU drop-in"
