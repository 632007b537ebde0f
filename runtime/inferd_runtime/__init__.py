"""inferd_runtime: models on this machine's hardware. No sockets, no asyncio, no protocol words.

Everything that the outside may use is named here, and imported only when first asked for: `import inferd_runtime` alone
loads no engine, no numpy, no psutil and no watcher. `probe` is the exception: the function has its room's name, and
only an import right here makes sure that the function is what everybody gets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from inferd_runtime.probe import Machine as Machine
from inferd_runtime.probe import probe as probe

if TYPE_CHECKING:
    from inferd_runtime.engines.discover import open_engines as open_engines
    from inferd_runtime.errors import Cancelled as Cancelled
    from inferd_runtime.errors import Closed as Closed
    from inferd_runtime.errors import DeadlineExceeded as DeadlineExceeded
    from inferd_runtime.errors import EngineFault as EngineFault
    from inferd_runtime.errors import EngineRefused as EngineRefused
    from inferd_runtime.errors import InferdError as InferdError
    from inferd_runtime.errors import InvalidModel as InvalidModel
    from inferd_runtime.errors import InvalidRequest as InvalidRequest
    from inferd_runtime.errors import LoadFailed as LoadFailed
    from inferd_runtime.errors import ModelNotFound as ModelNotFound
    from inferd_runtime.errors import ModelNotReady as ModelNotReady
    from inferd_runtime.errors import Overloaded as Overloaded
    from inferd_runtime.errors import Unsupported as Unsupported
    from inferd_runtime.job import Job as Job
    from inferd_runtime.options import RuntimeFigures as RuntimeFigures
    from inferd_runtime.options import RuntimeOptions as RuntimeOptions
    from inferd_runtime.planning.evidence import Candidate as Candidate
    from inferd_runtime.planning.evidence import Evidence as Evidence
    from inferd_runtime.planning.evidence import PlanState as PlanState
    from inferd_runtime.planning.evidence import Trial as Trial
    from inferd_runtime.runtime import Runtime as Runtime
    from inferd_runtime.spec import Embedding as Embedding
    from inferd_runtime.spec import ModelDescription as ModelDescription
    from inferd_runtime.spec import ModelSpec as ModelSpec
    from inferd_runtime.spec import Plan as Plan
    from inferd_runtime.spec import Quantisation as Quantisation
    from inferd_runtime.spec import State as State
    from inferd_runtime.spec import Veto as Veto
    from inferd_runtime.stats import LATENCY_BUCKETS_S as LATENCY_BUCKETS_S
    from inferd_runtime.stats import BatchStats as BatchStats
    from inferd_runtime.stats import StatsSnapshot as StatsSnapshot
    from inferd_runtime.tensor import TensorSpec as TensorSpec
    from inferd_runtime.tensor import datatype_name as datatype_name

_ROOMS = {
    "engines.discover": ("open_engines",),
    "errors": (
        "Cancelled", "Closed", "DeadlineExceeded", "EngineFault", "EngineRefused", "InferdError", "InvalidModel",
        "InvalidRequest", "LoadFailed", "ModelNotFound", "ModelNotReady", "Overloaded", "Unsupported",
    ),
    "job": ("Job",),
    "planning.evidence": ("Candidate", "Evidence", "PlanState", "Trial"),
    "options": ("RuntimeFigures", "RuntimeOptions"),
    "runtime": ("Runtime",),
    "spec": ("Embedding", "ModelDescription", "ModelSpec", "Plan", "Quantisation", "State", "Veto"),
    "stats": ("LATENCY_BUCKETS_S", "BatchStats", "StatsSnapshot"),
    "tensor": ("TensorSpec", "datatype_name"),
}  # fmt: skip
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> object:
    room = _HOMES.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOMES, "Machine", "probe"])
