"""The models on disk and what is served of them: finds versions, loads them one at a time, swaps, drains and reloads.

One loader thread owns every mutable thing here; everybody else reads an immutable snapshot that it replaces at once.
A version that fails keeps its reason and harms no other; a new version or new content takes traffic only once it is
open and warm, and where it fails the old one stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from inferd_runtime.job import Job
from inferd_runtime.repository.layout import VersionFiles
from inferd_runtime.repository.settings import ModelSettings
from inferd_runtime.spec import ModelDescription, ModelSpec, Plan


class Served(Protocol):
    """A loaded version as the façade serves it."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def plan(self) -> Plan: ...

    def submit(self, job: Job) -> None: ...

    def drain(self, timeout_s: float) -> bool:
        """Take no more, finish what was accepted; False when time ran out."""

    def close(self) -> None:
        """Free the session; jobs still waiting are settled with an error. Idempotent."""


class Repository:
    """The models under `roots`, kept as their files say.

    `open_version(files, settings)` plans, opens and warms a version, on the loader thread; it raises LoadFailed or
    InvalidModel with the reason. `files.variants` maps "" (the plain file), "int8", ... to paths; `settings.wishes()` is
    what `planning.plan_version` takes. `cache_dir` holds the journal of loads under way. `load="none"` loads only what
    `load()` asks for.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        open_version: Callable[[VersionFiles, ModelSettings], Served],
        cache_dir: Path,
        watch: bool = True,
        load: str = "all",
        settle_s: float = 0.5,
        rescan_s: float = 30.0,
        drain_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None: ...

    def start(self) -> None:
        """Begin scanning, loading and watching in the background."""

    def wait_loaded(self, timeout_s: float) -> bool:
        """Whether the first round of loading was over within `timeout_s`."""

    def is_ready(self) -> bool:
        """The first round is over, nothing is loading, and every model that should serve has a READY version."""

    def get(self, name: str, version: int | None = None) -> Served:
        """The served version, None for the highest; lock-free. Raises ModelNotFound, ModelNotReady."""

    def describe(self, name: str, version: int | None = None) -> ModelDescription:
        """None: the highest ready version, else the highest known. Raises ModelNotFound."""

    def versions(self, name: str) -> tuple[int, ...]:
        """The ready versions, ascending. Raises ModelNotFound."""

    def models(self) -> tuple[ModelDescription, ...]:
        """Every version known, refused folders too (as version 0), sorted by name and version."""

    def load(self, name: str, timeout_s: float = 600.0) -> None:
        """Load, or load again, what the model's version policy asks for; blocks. Raises LoadFailed, InvalidModel,
        ModelNotFound."""

    def unload(self, name: str) -> None:
        """Unload every version of a model and drain it, within `drain_s`; it stays unloaded until `load`.
        Raises ModelNotFound."""

    def close(self) -> None:
        """Stop watching and loading, close every served version without draining; idempotent."""
