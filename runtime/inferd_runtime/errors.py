"""Everything that inferd can refuse or fail at, as one tree.

    InferdError
    ├── InvalidRequest         the caller asked for something that cannot be: names, dtypes, shapes, sizes
    │   └── Unsupported        well-formed, but this model or build does not do it
    ├── ModelNotFound          no such model, version or output
    ├── ModelNotReady          known, but loading, draining, unloaded or failed just now
    ├── InvalidModel           the model folder, its model.toml or its file is wrong
    ├── LoadFailed             every engine refused the model, or its warm-up failed
    ├── EngineRefused          one engine cannot take this model (a reason in a plan, not yet a failure)
    ├── EngineFault            an engine failed while running a batch
    │   └── HostDied           the process that an engine ran in is gone
    ├── Overloaded             a queue or budget is full; try again later
    ├── DeadlineExceeded       the job's deadline passed, or cannot be met
    ├── Cancelled              the caller left
    └── Closed                 the runtime is draining or closed

No error here knows a protocol number: the agent owns the one table that maps them. Messages name what came, what was
expected and what to do, and are safe to show to the caller.
"""

from __future__ import annotations

from typing import Literal

HostDeath = Literal["crashed", "hung", "memory", "gone"]


class InferdError(Exception):
    """Root of the tree. `retry_after_s` is set where waiting helps."""

    retry_after_s: float | None = None

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class InvalidRequest(InferdError):
    """The caller asked for something that cannot be."""


class Unsupported(InvalidRequest):
    """Well-formed, but this model or this build does not do it."""


class ModelNotFound(InferdError):
    """No such model, version or output."""


class ModelNotReady(InferdError):
    """Known, but not serving at the moment."""

    retry_after_s = 1.0


class InvalidModel(InferdError):
    """The model folder, its model.toml or its file is wrong."""


class LoadFailed(InferdError):
    """No engine could open the model, or its warm-up failed."""


class EngineRefused(InferdError):
    """One engine cannot take this model; carries the engine's own reason."""


class EngineFault(InferdError):
    """An engine failed while running a batch; carries the engine's own reason."""


class HostDied(EngineFault):
    """The process that an engine ran in is gone; `kind` is how.

    "crashed" by itself, "hung" past a deadline, "memory" beyond its limit (both were killed by us), or "gone": closed,
    killed by somebody else, or never started.
    """

    def __init__(self, message: str, *, kind: HostDeath) -> None:
        super().__init__(message)
        self.kind = kind


class Overloaded(InferdError):
    """A queue or a budget is full."""

    retry_after_s = 1.0


class DeadlineExceeded(InferdError):
    """The job's deadline passed before it could run."""


class Cancelled(InferdError):
    """The caller left before the answer was there."""


class Closed(InferdError):
    """The runtime is draining or closed."""

    retry_after_s = 5.0
