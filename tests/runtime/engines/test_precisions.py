"""What an engine says it can compute in."""

from __future__ import annotations

from pathlib import Path

from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.ort import OrtEngine
from inferd_runtime.engines.ov import OvEngine
from tests import onnx_models


def test_every_precision_told_of_opens(tmp_path: Path) -> None:
    """OpenVINO takes each precision that it names for the CPU."""
    engine, path = OvEngine(), onnx_models.mlp(tmp_path / "m.onnx")
    for precision in engine.precisions("cpu"):
        engine.open(path, SessionOptions(precision=precision)).close()


def test_what_a_device_does_anyway_is_not_told() -> None:
    """A CPU has one usual precision, which is not among the others; a device that is not there has none."""
    told = OvEngine().precisions("cpu")
    assert set(told) < {"f32", "bf16", "f16"}
    assert OvEngine().precisions("gpu.77") == OrtEngine().precisions("cpu") == ()
