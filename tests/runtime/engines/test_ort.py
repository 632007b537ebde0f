"""What only the ONNX Runtime engine promises: strings, symbols, refusals, GPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.ort import OrtEngine
from inferd_runtime.errors import EngineFault, EngineRefused, InvalidRequest
from tests import onnx_models

engine = OrtEngine()


def strings(*items: bytes) -> np.ndarray:
    array = np.empty((len(items), 1), object)
    array[:, 0] = items
    return array


def test_strings_are_bytes_on_both_sides(tmp_path: Path) -> None:
    """Text of any alphabet, empty strings and NUL characters come back as the same bytes."""
    session = engine.open(onnx_models.string_identity(tmp_path / "m.onnx"), SessionOptions())
    assert session.inputs[0].datatype == session.outputs[0].datatype == "BYTES"
    x = strings("grüße 😀".encode(), b"", b"a\0b", b"plain")
    (got,) = session.run([x], [0])
    assert got.shape == (4, 1)
    assert got.tolist() == x.tolist()


def test_strings_are_computed_on(tmp_path: Path) -> None:
    """A model that works on text sees text."""
    session = engine.open(onnx_models.string_upper(tmp_path / "m.onnx"), SessionOptions())
    (got,) = session.run([strings(b"ab", b"Cd")[:, 0]], [0])
    assert got.tolist() == [b"AB", b"CD"]


def test_bytes_that_are_no_text_are_the_callers_fault(tmp_path: Path) -> None:
    """The message names the tensor and the element, and the session goes on."""
    session = engine.open(onnx_models.string_identity(tmp_path / "m.onnx"), SessionOptions())
    with pytest.raises(InvalidRequest, match=r"input 'x': element 1 is not UTF-8 at byte 2"):
        session.run([strings(b"fine", b"ab\xff")], [0])
    assert session.run([strings(b"fine")], [0])[0].tolist() == [[b"fine"]]


def test_no_strings_at_all(tmp_path: Path) -> None:
    """A string tensor without elements passes."""
    session = engine.open(onnx_models.string_identity(tmp_path / "m.onnx"), SessionOptions())
    assert session.run([np.empty((0, 1), object)], [0])[0].shape == (0, 1)


def test_symbols_of_first_dimensions(tmp_path: Path) -> None:
    """The file's names are told in the order of inputs, then outputs; what has none is empty."""
    same = engine.open(onnx_models.two_inputs(tmp_path / "a.onnx"), SessionOptions())
    assert same.batch_symbols == ("N", "N", "N", "N")
    apart = engine.open(onnx_models.two_inputs(tmp_path / "b.onnx", symbols=("N", "M")), SessionOptions())
    assert apart.batch_symbols[:2] == ("N", "M")
    fixed = engine.open(onnx_models.fixed_batch(tmp_path / "c.onnx"), SessionOptions())
    assert fixed.batch_symbols == ("", "")
    scalar = engine.open(onnx_models.no_batch(tmp_path / "d.onnx"), SessionOptions())
    assert scalar.batch_symbols == ("T", "")


def test_names_that_exporters_make_up_tell_nothing(tmp_path: Path) -> None:
    """An output's symbol that no input has is empty: Paddle's exporter numbers every free dimension anew."""
    value = onnx_models.value
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    ins, outs = [value("x", TensorProto.FLOAT, ["d.0", 4])], [value("y", TensorProto.FLOAT, ["d.3", 4])]
    session = engine.open(onnx_models.save(tmp_path / "m.onnx", nodes, ins, outs), SessionOptions())
    assert session.batch_symbols == ("d.0", "")


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_precision_hints_are_refused(precision: str, tmp_path: Path) -> None:
    """ONNX Runtime has no such hint, and an option is never silently ignored."""
    with pytest.raises(EngineRefused, match=f"no {precision} hint"):
        engine.open(onnx_models.mlp(tmp_path / "m.onnx"), SessionOptions(precision=precision))


def test_quantised_files_of_every_kind_run(tmp_path: Path) -> None:
    """QOperator, opset-11 per-channel QDQ and dynamic quantisation are ONNX Runtime's home ground."""
    x = np.random.default_rng(0).uniform(-3, 3, (5, 16)).astype(np.float32)
    exact = onnx_models._rng().normal(0, 0.3, (16, 4)).astype(np.float32)
    for build, bias in (
        (onnx_models.qoperator, 0.0),
        (onnx_models.dynamic_quantised, 0.0),
        (lambda path: onnx_models.qdq_per_channel(path, opset=11), np.linspace(-1, 1, 4)),
        (lambda path: onnx_models.qdq_per_channel(path, opset=13), np.linspace(-1, 1, 4)),
        (onnx_models.qdq_per_tensor, np.linspace(-1, 1, 4)),
    ):
        session = engine.open(build(tmp_path / "m.onnx"), SessionOptions())
        np.testing.assert_allclose(session.run([x], [0])[0], x @ exact + bias, atol=0.15)


def test_a_faulting_value_fails_its_run_only(tmp_path: Path) -> None:
    """An index out of range is a one-line EngineFault; the next run works."""
    session = engine.open(onnx_models.faulting(tmp_path / "m.onnx"), SessionOptions())
    with pytest.raises(EngineFault, match=r"ONNX Runtime: .*idx=99") as fault:
        session.run([np.array([[1], [99]])], [0])
    assert "\n" not in str(fault.value)
    assert session.run([np.array([[3]])], [0])[0] == 30


def test_only_tensors_are_served(tmp_path: Path) -> None:
    """A model that gives a sequence is refused by the name of its output."""
    out = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)
    nodes = [helper.make_node("SequenceConstruct", ["x"], ["parts"])]
    path = onnx_models.save(tmp_path / "m.onnx", nodes, [onnx_models.value("x", TensorProto.FLOAT, ["N"])], [out])
    with pytest.raises(EngineRefused, match=r"output 'parts' is a seq\(tensor\(float\)\)"):
        engine.open(path, SessionOptions())


def test_custom_operators_are_refused(tmp_path: Path) -> None:
    """An operator that only a library of the model's could bring is unknown: no such library is loaded."""
    node = helper.make_node("Evil", ["x"], ["y"], domain="com.example")
    value = onnx_models.value
    ins, outs = [value("x", TensorProto.FLOAT, ["N"])], [value("y", TensorProto.FLOAT, ["N"])]
    path = onnx_models.save(tmp_path / "m.onnx", [node], ins, outs, domains={"com.example": 1}, check=False)
    with pytest.raises(EngineRefused, match="Evil"):
        engine.open(path, SessionOptions())


def test_a_gpu_without_its_provider_is_no_device() -> None:
    """A GPU that the installed build cannot use is not offered."""
    pytest.importorskip("onnxruntime")
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build has the CUDA provider")
    assert OrtEngine(gpus=lambda: 2).devices() == ("cpu",)


@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
def test_gpu_agrees_with_the_cpu(kind: str, tmp_path: Path) -> None:
    """On a GPU the numbers are the CPU's."""
    device = f"{kind}:0"
    if device not in engine.devices():
        pytest.skip(f"no {device} here: needs an NVIDIA GPU and onnxruntime-gpu")
    session = engine.open(onnx_models.mlp(tmp_path / "m.onnx"), SessionOptions(device=device, cache_dir=tmp_path / "c"))
    x = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    np.testing.assert_allclose(session.run([x], [0])[0], onnx_models.mlp_reference(x), atol=1e-2)


def test_the_builders_write_sound_files(tmp_path: Path) -> None:
    """The models that tests rely on pass ONNX's own checker."""
    for build in (onnx_models.mlp, onnx_models.two_inputs, onnx_models.slow, onnx_models.faulting):
        onnx.checker.check_model(onnx.load(build(tmp_path / "m.onnx")))
