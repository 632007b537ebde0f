"""What is told of the daemon's state: coarse on purpose, so that it changes seldom and betrays little."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from inferd.fleet.record import DeviceState, Load
from inferd_runtime import ModelDescription, Runtime, RuntimeFigures, State

_DIGEST_CHARS = 16
# Waiting jobs for each core that make a device full, however its cores look just now.
_FULL_QUEUE = 4
_SMOOTHING = 0.4


class Facts(NamedTuple):
    """What changes while the daemon runs."""

    state: DeviceState
    load: Load
    models_digest: str
    version: str
    fingerprint: str


def models_digest(models: Iterable[ModelDescription]) -> str:
    """Changes whenever the versions that serve, or their files, change; tells no names."""
    ready = sorted(f"{each.name}\0{each.version}\0{each.digest}" for each in models if each.state is State.READY)
    return hashlib.sha256("\n".join(ready).encode()).hexdigest()[:_DIGEST_CHARS]


class LoadMeter:
    """The load class from figures taken at even intervals: smoothed, so that one request changes nothing."""

    def __init__(self) -> None:
        self._busy = 0.0
        self._waiting = 0.0

    def take(self, figures: RuntimeFigures) -> Load:
        """One sample; the class as of now."""
        cores = max(1, figures.core_size)
        used = max(figures.core_used, min(figures.own_busy_cores or 0.0, cores)) / cores
        self._busy += _SMOOTHING * (used - self._busy)
        self._waiting += _SMOOTHING * (figures.queued_jobs / cores - self._waiting)
        if self._waiting >= _FULL_QUEUE or figures.held_bytes > 0.9 * figures.max_held_bytes:
            return "full"
        if self._busy < 0.05 and self._waiting < 0.05:
            return "idle"
        return "light" if self._busy < 0.5 else "busy"


class Survey:
    """Reads the facts of a running daemon, once a second. `fingerprint` tells the certificate now in use."""

    def __init__(self, runtime: Runtime, version: str, fingerprint: Callable[[], str]) -> None:
        self._runtime = runtime
        self._version = version
        self._fingerprint = fingerprint
        self._meter = LoadMeter()

    def __call__(self) -> Facts:
        models = self._runtime.models()
        # A model that failed, or is loaded anew, stops no others.
        serves = self._runtime.is_ready() or any(each.state is State.READY for each in models)
        return Facts(
            state="ready" if serves else "loading",
            load=self._meter.take(self._runtime.figures()),
            models_digest=models_digest(models),
            version=self._version,
            fingerprint=self._fingerprint(),
        )
