"""What only the OpenVINO engine promises: readable refusals, precision, its compile cache, IR files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.ov import OvEngine
from inferd_runtime.errors import EngineRefused, Unsupported
from tests import onnx_models

engine = OvEngine()
F32 = SessionOptions(precision="f32")


def rows(count: int, width: int = 64) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)


def test_qoperator_files_are_refused_with_a_reason(tmp_path: Path) -> None:
    """The operator that cannot be converted is named, in one line."""
    with pytest.raises(EngineRefused) as refusal:
        engine.open(onnx_models.qoperator(tmp_path / "m.onnx"), F32)
    assert str(refusal.value) == "OpenVINO: No conversion rule found for operations: com.microsoft.QGemm"


def test_per_channel_qdq_at_opset_11_is_refused_with_a_reason(tmp_path: Path) -> None:
    """The old per-axis form is refused readably; the same model at opset 13 opens."""
    with pytest.raises(EngineRefused) as refusal:
        engine.open(onnx_models.qdq_per_channel(tmp_path / "old.onnx", opset=11), F32)
    message = str(refusal.value)
    assert "DequantizeLinear-11" in message
    assert "scale needs to be a scalar" in message
    assert "\n" not in message
    assert "src/" not in message
    assert len(message) < 450
    engine.open(onnx_models.qdq_per_channel(tmp_path / "new.onnx", opset=13), F32)


def test_strings_are_refused(tmp_path: Path) -> None:
    """String tensors are ONNX Runtime's."""
    with pytest.raises(EngineRefused, match="input 'x' has the element type string"):
        engine.open(onnx_models.string_identity(tmp_path / "m.onnx"), F32)


@pytest.mark.parametrize(
    ("datatype", "fine", "bad"),
    [
        ("INT64", [2**31 - 1, -(2**31)], 2**31),
        ("UINT64", [2**31 - 1, 0], 2**40),
        ("FP64", [3e38, np.inf, -np.inf, np.nan], -1e300),
    ],
)
def test_values_that_32_bits_cannot_hold_are_refused(tmp_path: Path, datatype: str, fine: list, bad: float) -> None:
    """OpenVINO would make others of them without a word; the same model goes on with what it can hold."""
    session = engine.open(onnx_models.identity(tmp_path / "m.onnx", datatype, ("N", 1)), F32)
    (spec,) = session.inputs
    for value in fine:
        x = np.array([[value]], spec.dtype)
        assert np.array_equal(session.run([x], [0])[0].astype(np.float32), x.astype(np.float32), equal_nan=True)
    with pytest.raises(Unsupported, match=r"input 'x' has the value .* OpenVINO computes .* in 32 bits"):
        session.run([np.array([[fine[0]], [bad]], spec.dtype)], [0])
    assert session.run([np.empty((0, 1), spec.dtype)], [0])[0].shape == (0, 1)


def test_a_precision_the_device_lacks_is_refused(tmp_path: Path) -> None:
    """Asked for what the CPU cannot do, OpenVINO computes in something else; that is a refusal, not a surprise."""
    path = onnx_models.mlp(tmp_path / "m.onnx")
    opened = []
    for precision in ("f32", "bf16", "f16"):
        try:
            session = engine.open(path, SessionOptions(precision=precision))
        except EngineRefused as refusal:
            assert f"no {precision}" in str(refusal)  # noqa: PT017
            continue
        got = session.run([rows(4)], [0])[0]
        np.testing.assert_allclose(got, onnx_models.mlp_reference(rows(4)), atol=1e-5 if precision == "f32" else 0.02)
        opened.append(precision)
    assert "f32" in opened


ONE_CORE = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from pathlib import Path
import numpy as np
from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.ov import OvEngine
from inferd_runtime.errors import EngineFault
for streams, threads in ((1, 1), (2, 1), (1, 2), (2, 2)):
    session = OvEngine().open(Path(sys.argv[1]), SessionOptions(streams=streams, threads=threads))
    for shape in ([2, 2], [2, 3], [3, 3], [4, 1]):
        try:
            got = session.run([np.ones(4, np.float32), np.array(shape)], [0])[0].shape
        except EngineFault:
            got = "fault"
        print(got)
"""


def test_a_fault_is_told_where_only_one_core_is_allowed(tmp_path: Path) -> None:
    """With fewer cores than streams and threads ask for, a failing run still fails."""
    path = onnx_models.faulting_reshape(tmp_path / "m.onnx")
    done = subprocess.run([sys.executable, "-c", ONE_CORE, str(path)], capture_output=True, text=True, timeout=50)
    assert done.stdout.splitlines() == ["(2, 2)", "fault", "fault", "(4, 1)"] * 4, done.stderr[-2000:]


def test_ir_files_open(tmp_path: Path) -> None:
    """An .xml with its .bin gives the same numbers as the .onnx it came from."""
    openvino = pytest.importorskip("openvino")
    openvino.save_model(openvino.convert_model(str(onnx_models.mlp(tmp_path / "m.onnx"))), tmp_path / "m.xml", False)
    assert engine.reads(tmp_path / "m.xml")
    session = engine.open(tmp_path / "m.xml", F32)
    assert [spec.name for spec in (*session.inputs, *session.outputs)] == ["x", "probabilities"]
    np.testing.assert_allclose(session.run([rows(2)], [0])[0], onnx_models.mlp_reference(rows(2)), atol=1e-5)


def _relu_tflite() -> bytes:
    """A TensorFlow Lite file of one RELU on FLOAT32 [1, 4], by the field numbers of its schema."""
    b = pytest.importorskip("flatbuffers").Builder(0)
    texts = {text: b.CreateString(text) for text in ("x", "y", "main")}

    def vector(items: list[int], add: str) -> int:
        b.StartVector(4, len(items), 4)
        for item in reversed(items):
            getattr(b, add)(item)
        return int(b.EndVector())

    def table(size: int, offsets: dict[int, int], numbers: dict[int, int] | None = None) -> int:
        b.StartObject(size)
        for slot, offset in offsets.items():
            b.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for slot, number in (numbers or {}).items():
            b.PrependInt32Slot(slot, number, 0)
        return int(b.EndObject())

    shapes = [vector([1, 4], "PrependInt32") for _ in range(2)]
    tensors = vector(
        [table(4, {0: s, 3: texts[n]}) for s, n in zip(shapes, "xy", strict=True)], "PrependUOffsetTRelative"
    )
    ends = [vector([index], "PrependInt32") for index in (0, 1)]
    operators = vector([table(3, {1: ends[0], 2: ends[1]})], "PrependUOffsetTRelative")
    graph = table(5, {0: tensors, 1: ends[0], 2: ends[1], 3: operators, 4: texts["main"]})
    graphs = vector([graph], "PrependUOffsetTRelative")
    b.StartObject(4)
    b.PrependInt8Slot(0, 19, 0)  # RELU
    b.PrependInt32Slot(3, 19, 0)
    codes = vector([b.EndObject()], "PrependUOffsetTRelative")
    buffers = vector([table(1, {})], "PrependUOffsetTRelative")
    b.Finish(table(5, {1: codes, 2: graphs, 4: buffers}, {0: 3}), b"TFL3")
    return bytes(b.Output())


def test_tensorflow_lite_files_open(tmp_path: Path) -> None:
    """A .tflite file runs, with the names in it."""
    (tmp_path / "m.tflite").write_bytes(_relu_tflite())
    session = engine.open(tmp_path / "m.tflite", F32)
    assert [(s.name, s.datatype, s.shape) for s in session.inputs] == [("x", "FP32", (1, 4))]
    assert [spec.name for spec in session.outputs] == ["y"]
    got = session.run([np.array([[-1, 2, -3, 4]], np.float32)], [0])[0]
    np.testing.assert_array_equal(got, [[0, 2, 0, 4]])


def test_the_cache_serves_the_second_open(tmp_path: Path) -> None:
    """A model compiled once is loaded from the cache, with the same answers."""
    path = onnx_models.mlp(tmp_path / "m.onnx")
    cached = SessionOptions(precision="f32", cache_dir=tmp_path / "cache")
    first = engine.open(path, cached)
    second = engine.open(path, cached)
    assert first._compiled.get_property("LOADED_FROM_CACHE") is False
    assert second._compiled.get_property("LOADED_FROM_CACHE") is True
    np.testing.assert_array_equal(first.run([rows(3)], [0])[0], second.run([rows(3)], [0])[0])


def test_a_replaced_model_never_answers_from_the_cache(tmp_path: Path) -> None:
    """Same path, same size, same time, other weights: the new weights answer."""
    path = tmp_path / "m.onnx"
    cached = SessionOptions(precision="f32", cache_dir=tmp_path / "cache")
    x = np.ones((1, 4), np.float32)
    answers = []
    stamp = None
    for weight in (1, 7):
        nodes = [onnx_models.helper.make_node("MatMul", ["x", "w"], ["y"])]
        values = [onnx_models.value(name, onnx_models.TensorProto.FLOAT, ["N", 4]) for name in "xy"]
        onnx_models.save(path, nodes, values[:1], values[1:], {"w": np.full((4, 4), weight, np.float32)})
        stamp = stamp or path.stat().st_mtime_ns
        os.utime(path, ns=(stamp, stamp))
        answers.append(float(engine.open(path, cached).run([x], [0])[0][0, 0]))
    assert answers == [4, 28]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    """A cache folder that is a file, or below one, or cut short on disk costs time and nothing else."""
    path = onnx_models.mlp(tmp_path / "m.onnx")
    (tmp_path / "file").write_text("in the way")
    for cache in (tmp_path / "file", tmp_path / "file" / "below"):
        session = engine.open(path, SessionOptions(precision="f32", cache_dir=cache))
        np.testing.assert_allclose(session.run([rows(1)], [0])[0], onnx_models.mlp_reference(rows(1)), atol=1e-5)
    cached = SessionOptions(precision="f32", cache_dir=tmp_path / "cache")
    engine.open(path, cached)
    for blob in (tmp_path / "cache").rglob("*.blob"):
        blob.write_bytes(blob.read_bytes()[: blob.stat().st_size // 2])
    got = engine.open(path, cached).run([rows(1)], [0])[0]
    np.testing.assert_allclose(got, onnx_models.mlp_reference(rows(1)), atol=1e-5)
