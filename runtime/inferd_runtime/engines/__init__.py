"""Engines: the libraries that compile and run models. This room knows model files and tensors, and nothing of queues.

`Engine` and `Session` are the contract; `ort` (ONNX Runtime) and `ov` (OpenVINO) implement it. An engine's library is
imported when the engine is first opened, never at import time. Every failure of a library becomes `EngineRefused` (on
opening) or `EngineFault` (on running) with the library's own reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from inferd_runtime.tensor import TensorSpec

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to compile: `device` as the engine names it in `Engine.devices`, `streams` concurrent runs of `threads` each.

    `precision` is "auto" (the engine's default), "f32", "bf16" or "f16". `cache_dir` may hold compiled models. `rows` >
    0 compiles for exactly so many rows; the session still takes any number of them.
    """

    device: str = "cpu"
    streams: int = 1
    threads: int = 1
    precision: str = "auto"
    cache_dir: Path | None = None
    rows: int = 0


class Session(Protocol):
    """One compiled model, ready to run; safe for `options.streams` concurrent callers of `run`."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def batch_symbols(self) -> tuple[str, ...]:
        """The file's names of the first dimensions of `inputs`, then `outputs`.

        "" where it is fixed, unnamed, lost by the engine (OpenVINO loses all of them), or, on an output, a name that no
        input has. Two names that differ mean two dimensions that may differ.
        """

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        """Run once.

        `inputs` in the order of `self.inputs`, C-contiguous, read-only; `outputs` are indices into `self.outputs`. The
        arrays returned are the caller's alone: no later run writes to them. String tensors are object arrays of bytes
        in both directions. Raises EngineFault, or InvalidRequest where the values are at fault (bytes that are not
        UTF-8, say).
        """

    def close(self) -> None:
        """Free the compiled model; idempotent. No run is under way and none follows."""


class Engine(Protocol):
    """One engine library as installed here."""

    @property
    def name(self) -> str:
        """ "onnxruntime" or "openvino"."""

    @property
    def version(self) -> str: ...

    def devices(self) -> tuple[str, ...]:
        """Devices that a session can be opened on: "cpu", "cuda:0", "tensorrt:0", "gpu", "npu" ...

        A library that is installed but broken still says "cpu": `open` then refuses with the reason.
        """

    def precisions(self, device: str) -> tuple[str, ...]:
        """What `SessionOptions.precision` may ask for on `device` beyond what "auto" means there anyway."""

    def reads(self, path: Path) -> bool:
        """Whether files with this suffix are for this engine at all."""

    def open(self, path: Path, options: SessionOptions) -> Session:
        """Compile the model at `path`. Raises EngineRefused with the engine's own reason."""
