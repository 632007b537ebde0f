"""What a runtime is given and what it tells: the options, the governor's bounds that follow from them, the figures."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from inferd_runtime.probe import Machine
from inferd_runtime.scheduling.policy import MODES, Policy

_CHOICES = {
    "load": ("all", "none"),
    "governor": MODES,
    "inline": ("auto", "off"),
    "engine": ("auto", "onnxruntime", "openvino"),
    "planning": ("auto", "off"),
    "objective": ("latency", "throughput", "balanced"),
}

_LEAST = {
    "max_jobs": 1, "max_queue_bytes": 1, "cores": 0, "core_floor": 1, "headroom": 0, "max_temperature_c": 0,
    "budget_s": 1,
}  # fmt: skip

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """How to serve. `max_jobs` bounds the waiting jobs of each model, `max_queue_bytes` the input bytes that waiting
    and running jobs of all models hold. `cores` 0: as many physical cores as the machine lets us use; the governor
    keeps at least `core_floor` of them and leaves `headroom` of the machine's to others, whether they use them or not.
    From `max_temperature_c` on it gives cores back, 0: where the processor's drivers call it hot. On a battery it uses
    `battery_share` of the cores. With `planning` "off" no model is measured unasked; `budget_s` is how long measuring
    one may take, `objective` what its plan strives for. A bad value raises ValueError."""

    models: tuple[Path, ...]
    cache_dir: Path
    watch: bool = True
    load: str = "all"
    max_jobs: int = 1024
    max_queue_bytes: int = 256 << 20
    cores: int = 0
    core_floor: int = 1
    governor: str = "polite"
    headroom: float = 0.0
    max_temperature_c: float = 0.0
    battery_share: float = 0.5
    inline: str = "auto"
    engine: str = "auto"
    planning: str = "auto"
    budget_s: float = 20.0
    objective: str = "balanced"

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        for name, least in _LEAST.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is at least {least}, not {getattr(self, name)}")
        if not 0 < self.battery_share <= 1:
            raise ValueError(f"battery_share is more than 0 and at most 1, not {self.battery_share}")


@dataclass(frozen=True, slots=True)
class RuntimeFigures:
    """The whole runtime at one moment, for whoever scrapes. Busy cores are None before the first load sample; others
    are those that have nothing to do with us, as our callers on this machine have."""

    core_floor: int
    core_ceiling: int
    core_size: int
    core_used: int
    queued_jobs: int
    running_jobs: int
    held_bytes: int
    max_held_bytes: int
    host_busy_cores: float | None
    own_busy_cores: float | None
    others_busy_cores: float | None = None


def policy_of(options: RuntimeOptions, machine: Machine) -> Policy:
    """The governor's bounds: by default the physical cores that we may use, within the quota."""
    allowed = len(machine.allowed_cores) or 1
    if options.cores > allowed:
        _log.warning("cores = %d, but only %d are allowed here (%s)", options.cores, allowed, machine.core_reason)
    ceiling = min(options.cores, allowed) or max(1, min(machine.usable_cores, machine.allowed_physical))
    return Policy(
        floor=min(options.core_floor, ceiling),
        ceiling=ceiling,
        mode=options.governor,
        counts_siblings=ceiling > machine.allowed_physical,
        headroom=options.headroom,
        max_temperature_c=options.max_temperature_c,
        battery_share=options.battery_share,
    )
