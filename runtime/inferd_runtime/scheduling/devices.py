"""A budget for every device: cores on the CPU, streams on each device beside it.

A run on a GPU takes a stream of that GPU, and its thread only waits: it neither queues for cores nor keeps them from
models that compute there. CUDA and TensorRT are two ways to one GPU and share its streams.
"""

from __future__ import annotations

import threading

from inferd_runtime.scheduling.budget import CoreBudget

# Of all models on one device together; more at once get in each other's way there.
DEVICE_STREAMS = 4


class DeviceBudgets:
    """Hands out the one budget of a device, made when it is first asked for. Any thread may call.

    The governor resizes `cores` alone: what the host's other work needs of a GPU is not known.
    """

    def __init__(self, cores: CoreBudget, streams: int = DEVICE_STREAMS) -> None:
        self._cores = cores
        self._streams = streams
        self._lock = threading.Lock()  # guards _others
        self._others: dict[str, CoreBudget] = {}

    def of(self, device: str) -> CoreBudget:
        """The budget that runs on `device`, as engines name it, are paid from."""
        if device == "cpu":
            return self._cores
        kind, _, index = device.partition(":")
        place = f"nvidia:{index or 0}" if kind in ("cuda", "tensorrt") else device
        with self._lock:
            return self._others.setdefault(place, CoreBudget(self._streams))

    def close(self) -> None:
        """Close all of them; idempotent."""
        with self._lock:
            for budget in (self._cores, *self._others.values()):
                budget.close()
