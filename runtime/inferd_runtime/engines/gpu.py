"""NVIDIA GPUs as the driver tells of them: how many there are, and how much of their memory is taken.

Memory is read through NVML, the library that comes with every driver: it needs neither CUDA nor a context on the GPU,
so looking costs none of what is measured. It tells of the whole device: what a session takes is the difference of two
looks, and what others took between them is in it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LIBRARY = "libnvidia-ml.so.1"
_KINDS = ("cuda", "tensorrt")


def count_nvidia_gpus(dev: Path = Path("/dev")) -> int:
    """GPUs with a device node: /dev/nvidia0 ... on a PC or server, one behind nvmap on a Jetson."""
    discrete = sum(1 for node in dev.glob("nvidia[0-9]*") if node.name.removeprefix("nvidia").isdigit())
    return discrete or int((dev / "nvmap").exists())


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Of one whole device."""

    total_bytes: int
    used_bytes: int


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class _Failed(Exception):
    """A call of the library did not succeed."""


class GpuMemory:
    """Looks at the memory of the devices that sessions are opened on, by the same names; from any thread."""

    def __init__(self, *, load: Callable[[str], Any] = ctypes.CDLL, environ: Mapping[str, str] = os.environ) -> None:
        self._load = load
        self._environ = environ

    def look(self, device: str) -> DeviceMemory | None:
        """The memory of "cuda:0", "tensorrt:0" ...; None for other devices, and where the driver does not tell."""
        kind, _, index = device.partition(":")
        if kind not in _KINDS or not index.isdigit():
            return None
        try:
            library = self._load(_LIBRARY)
            _call(library.nvmlInit_v2)
        except (OSError, AttributeError, _Failed):  # not there, or not what it is called
            return None
        try:
            memory = _Memory()
            _call(library.nvmlDeviceGetMemoryInfo, self._handle(library, int(index)), ctypes.byref(memory))
            return DeviceMemory(memory.total, memory.used)
        except _Failed:
            return None
        finally:
            library.nvmlShutdown()

    def _handle(self, library: Any, index: int) -> ctypes.c_void_p:
        """NVML's handle of what CUDA calls `index`: both count in the order of the bus (see `OrtEngine`), but CUDA
        only what the environment lets it see."""
        handle = ctypes.c_void_p()
        visible = self._environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            names = [name.strip() for name in visible.split(",")]
            if index >= len(names):
                raise _Failed
            if not names[index].isdigit():  # GPU-8f3c...
                _call(library.nvmlDeviceGetHandleByUUID, names[index].encode(), ctypes.byref(handle))
                return handle
            index = int(names[index])
        _call(library.nvmlDeviceGetHandleByIndex_v2, ctypes.c_uint(index), ctypes.byref(handle))
        return handle


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments):
        raise _Failed
