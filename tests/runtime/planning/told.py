"""Engines that are only told of: their devices and precisions are what a test says; they open nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from inferd_runtime.engines import Session, SessionOptions
from inferd_runtime.errors import EngineRefused
from inferd_runtime.planning import Ground


class ToldEngine:
    """An engine that is here as far as anybody asks."""

    version = "1.0"

    def __init__(self, name: str, devices: Sequence[str] = ("cpu",), precisions: Sequence[str] = ()) -> None:
        self.name = name
        self._devices = tuple(devices)
        self._precisions = tuple(precisions)

    def devices(self) -> tuple[str, ...]:
        return self._devices

    def precisions(self, device: str) -> tuple[str, ...]:
        return self._precisions

    def reads(self, path: Path) -> bool:
        return path.suffix == ".onnx" or (path.suffix == ".xml" and self.name == "openvino")

    def open(self, path: Path, options: SessionOptions) -> Session:
        raise EngineRefused("only told of")


def told(cores: int) -> Ground:
    """Both engines on a CPU that has BF16."""
    openvino, onnxruntime = ToldEngine("openvino", precisions=("f32",)), ToldEngine("onnxruntime")
    return Ground({"openvino": openvino, "onnxruntime": onnxruntime}, cores)
