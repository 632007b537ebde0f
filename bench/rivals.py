"""The static rules that planning has to beat: engines opened as their own documentation says, in an engine host.

`python -m bench.rivals BIRTH` is such a host's child. Only opening differs: runs go the same way as inferd's own, so
that a difference in speed is one of settings.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from inferd_runtime.engines import Session, SessionOptions
from inferd_runtime.engines.host import HostProcess
from inferd_runtime.engines.host.child import serve
from inferd_runtime.engines.ort import OrtSession
from inferd_runtime.engines.ov import OvSession
from inferd_runtime.errors import EngineRefused

ORT_DEFAULTS, OV_LATENCY, OV_THROUGHPUT = "ort-defaults", "ov-latency", "ov-throughput"
RIVALS = (ORT_DEFAULTS, OV_LATENCY, OV_THROUGHPUT)


class Rival:
    """An `Engine` that leaves threads, streams and precision to the library; OpenVINO is given a hint."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = ""

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)

    def precisions(self, device: str) -> tuple[str, ...]:
        return ()

    def reads(self, path: Path) -> bool:
        return path.suffix == ".onnx"

    def open(self, path: Path, options: SessionOptions) -> Session:
        try:
            return _onnxruntime(path) if self.name == ORT_DEFAULTS else _openvino(path, self.name)
        except Exception as error:
            raise EngineRefused(f"{self.name}: {error}") from error


def _onnxruntime(path: Path) -> Session:
    import onnxruntime

    return OrtSession(onnxruntime, onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]), path)


def _openvino(path: Path, rival: str) -> Session:
    import openvino

    core = openvino.Core()
    hint = "LATENCY" if rival == OV_LATENCY else "THROUGHPUT"

    def compiled() -> Any:
        return core.compile_model(path, "CPU", {"PERFORMANCE_HINT": hint})

    first = compiled()
    return OvSession(openvino, compiled, first, path, first.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))


def start(engine: str) -> HostProcess:
    """A host of an engine of inferd's, or of a rival."""
    host = partial(HostProcess, engine, places=1)
    return host(program=(sys.executable, "-m", "bench.rivals")) if engine in RIVALS else host()


if __name__ == "__main__":
    serve(sys.argv[1], {name: Rival(name) for name in RIVALS})
