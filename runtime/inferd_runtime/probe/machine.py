"""The Machine: what the probe found, as frozen data that any room may hold, hash and show.

Nothing here reads anything. Absent facts are None, "" or empty, never an error. Core numbers are the kernel's logical
CPU numbers. `digest` covers what a plan depends on, and nothing that changes from one hour to the next.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

PERFORMANCE = "performance"
EFFICIENCY = "efficiency"


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor. `flags`: the INT8-relevant ones that every core has, sorted, by the names in `cpu.ISA_FLAGS`."""

    model: str = ""
    vendor: str = ""
    arch: str = ""
    flags: tuple[str, ...] = ()
    sockets: int = 1
    physical_cores: int = 1
    logical_cores: int = 1


@dataclass(frozen=True, slots=True)
class Core:
    """One logical CPU. `is_sibling`: a core that is allowed too already stands for its physical core (SMT)."""

    id: int
    package: int
    physical: int
    kind: str = PERFORMANCE
    is_sibling: bool = False
    max_mhz: int | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound set by a cgroup. `value` is CPUs or bytes; `cgroup` the folder of the control group that sets it."""

    value: float
    source: str
    cgroup: str


@dataclass(frozen=True, slots=True)
class Cache:
    """All caches of one level, kind and size. `shared_by`: logical CPUs to one cache."""

    level: int
    kind: str
    size_bytes: int
    count: int
    shared_by: int


@dataclass(frozen=True, slots=True)
class Memory:
    """`usable_bytes`: the total or the cgroup's limit, whichever is less; `available_bytes`: what is free of that."""

    total_bytes: int = 0
    usable_bytes: int = 0
    available_bytes: int = 0
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU or NPU. `reason` says why `may_open` is false. `memory_bytes` is its own memory, where the kernel tells."""

    kind: str
    vendor: str
    name: str
    address: str = ""
    driver: str = ""
    driver_version: str = ""
    node: str = ""
    may_open: bool = False
    reason: str = ""
    is_integrated: bool = False
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """The whole. `allowed_cores` is in order of preference: performance, efficiency, then SMT siblings.

    `core_budget` is how much CPU may be used, in cores (a quota makes it fractional); `core_reason` tells why.
    """

    cpu: Cpu
    cores: tuple[Core, ...]
    allowed_cores: tuple[int, ...]
    core_budget: float
    core_reason: str
    quota: Limit | None
    caches: tuple[Cache, ...]
    memory: Memory
    devices: tuple[Device, ...]
    board: str = ""
    kernel: str = ""

    @property
    def usable_cores(self) -> int:
        """Whole cores to keep busy at once: the budget rounded down, at least one.

        Rounded down: a process that outruns its quota is stopped for the rest of the period, event loop and all.
        """
        return max(1, int(self.core_budget))

    @property
    def allowed_physical(self) -> int:
        """Physical cores among the allowed."""
        siblings = {core.id for core in self.cores if core.is_sibling}
        return sum(1 for core in self.allowed_cores if core not in siblings)

    @property
    def is_hybrid(self) -> bool:
        """Whether fast and slow cores live together."""
        return len({core.kind for core in self.cores}) > 1

    @property
    def digest(self) -> str:
        """A stable name for everything that a measured plan depends on: 16 hex digits."""
        facts = {
            "cpu": asdict(self.cpu),
            "allowed": [[core.id, core.kind, core.is_sibling] for core in self.cores if core.id in self.allowed_cores],
            "budget": self.core_budget,
            "devices": [asdict(device) for device in self.devices],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The whole Machine as plain JSON types, derived facts included."""
        derived = {
            "usable_cores": self.usable_cores,
            "allowed_physical": self.allowed_physical,
            "is_hybrid": self.is_hybrid,
            "digest": self.digest,
        }
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain | derived
