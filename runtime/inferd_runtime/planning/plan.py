"""What planning is given and what it gives back: plain data, shared by every rule that chooses.

`Ground` is what holds for all models on this machine, `Wishes` what one model's settings ask for, `Planned` an open
session with the plan that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inferd_runtime.engines import Engine, Session
from inferd_runtime.spec import ModelSpec, Plan

AUTO = "auto"
LATENCY, THROUGHPUT, BALANCED = OBJECTIVES = ("latency", "throughput", "balanced")
# Longer runs of one row would hold up the submitting thread.
INLINE_US = 250.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What every plan stands on: engines that opened, reasons for those that did not, cores the daemon may use.

    `has_cuda_gpu`: the probe found an NVIDIA GPU; `cuda_refusal` is why we may not open it, empty when we may. `engine`
    and `inline` are the daemon's own settings: a model's engine overrules the first, and "off" is final in the second.
    `objective` is what a measured plan strives for where the model does not say; `machine_digest` names the hardware
    that measurements hold for.
    """

    engines: Mapping[str, Engine]
    cores: int
    missing: Mapping[str, str] = field(default_factory=dict)
    has_cuda_gpu: bool = False
    cuda_refusal: str = ""
    engine: str = AUTO
    inline: str = AUTO
    cache_dir: Path | None = None
    objective: str = BALANCED
    machine_digest: str = ""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a model's settings ask for; zeros, "auto", "" and None leave the choice to the rule.

    `max_batch` 0 means that the first dimension is not a batch, though. `metric` and `tolerance` (0: by the kind of
    output) bound how far a candidate's answers may stray. `isolation` "process" keeps the session in a child process.
    `shapes` fix free dimensions of tensors by name, those behind the batch. `rows` > 0 compiles for exactly so many:
    nothing that settings say, but a measured plan may.
    """

    variant: str | None = None
    engine: str = AUTO
    device: str = AUTO
    precision: str = AUTO
    streams: int = 0
    threads: int = 0
    max_batch: int | None = None
    batch: int = 0
    rows: int = 0
    inline: str = AUTO
    objective: str = ""
    isolation: str = "none"
    metric: str = AUTO
    tolerance: float = 0.0
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    """Open, warm sessions with their plan; the receiver owns the sessions and closes them.

    `idle_session` is there where the plan has an `idle` shape.
    """

    plan: Plan
    spec: ModelSpec
    session: Session
    idle_session: Session | None = None
