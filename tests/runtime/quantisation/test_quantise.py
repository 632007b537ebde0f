"""Quantising: real small models through the room, in the forms that exporters leave them in, and the refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from inferd_runtime.errors import EngineRefused, InvalidModel, InvalidRequest
from inferd_runtime.quantisation import quantise

CHANNELS = 32
RANDOM = np.random.default_rng(3)
WEIGHTS = {
    "conv.w": (RANDOM.normal(size=(CHANNELS, 3, 3, 3)) * RANDOM.uniform(0.01, 1, (CHANNELS, 1, 1, 1))).astype("f4"),
    "conv.b": RANDOM.normal(size=CHANNELS).astype("f4"),
    "dense.w": RANDOM.normal(size=(CHANNELS, 512)).astype("f4"),
}


def picture_model(path: Path, *, opset: int = 11, as_constants: bool = True) -> Path:
    """Conv, Relu, mean over the picture, MatMul; weights in Constant nodes as Paddle leaves them, or initializers."""
    tensors = [numpy_helper.from_array(value, name) for name, value in WEIGHTS.items()]
    nodes = (
        [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in tensors] if as_constants else []
    )
    nodes += [
        helper.make_node("Conv", ["x", "conv.w", "conv.b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "dense.w"], ["y"]),
    ]
    return save(path, nodes, [] if as_constants else tensors, ["n", 3, 16, 16], ["n", 512], opset)


def save(path: Path, nodes: list, tensors: list, shape: list, out: list, opset: int = 17) -> Path:
    """A model of one input x and one output y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, {"author": "a test"})
    onnx.save_model(model, path)
    return path


def samples(count: int = 6) -> list[dict[str, np.ndarray]]:
    """Inputs of the picture model."""
    draw = np.random.default_rng(4)
    return [{"x": draw.normal(size=(2, 3, 16, 16)).astype("f4")} for _ in range(count)]


@pytest.mark.parametrize("as_constants", [True, False])
def test_the_result_is_small_right_and_runs_in_both_engines(tmp_path: Path, as_constants: bool) -> None:
    """From opset 11 and either home of the weights: few bytes, nearly equal answers, both engines take it."""
    source = picture_model(tmp_path / "float.onnx", as_constants=as_constants)
    target = tmp_path / "out" / "model.int8.onnx"
    report = quantise(source, target, samples())
    assert report.quantised == {"Conv": 1, "MatMul": 1}
    assert report.left == ()
    assert report.opset >= 13
    assert report.samples == 6
    assert (report.before_bytes, report.after_bytes) == (source.stat().st_size, target.stat().st_size)
    assert report.after_bytes < report.before_bytes * 0.45
    assert report.similarity["y"] > 0.999
    feed = samples(1)[0]
    expected = onnxruntime.InferenceSession(source).run(None, feed)[0]
    by_openvino = openvino.Core().compile_model(target, "CPU")(feed)[0]
    for got in (onnxruntime.InferenceSession(target).run(None, feed)[0], by_openvino):
        assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(("per_channel", "scales"), [(True, {CHANNELS, 512}), (False, {1})])
def test_scales_per_channel_or_per_tensor(tmp_path: Path, per_channel: bool, scales: set[int]) -> None:
    """`per_channel` decides how many scales a weight has."""
    target = tmp_path / "int8.onnx"
    quantise(picture_model(tmp_path / "float.onnx"), target, samples(), per_channel=per_channel)
    graph = onnx.load(target).graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    int8 = {
        tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1
    }
    assert len(int8) == 2
    assert {sizes[node.input[1]] for node in graph.node if node.input and node.input[0] in int8} == scales


def test_metadata_and_shapes_survive(tmp_path: Path) -> None:
    """What the file says about itself, its input and its output is said by the INT8 file too."""
    target = tmp_path / "int8.onnx"
    quantise(picture_model(tmp_path / "float.onnx"), target, samples())
    session = onnxruntime.InferenceSession(target)
    assert session.get_modelmeta().custom_metadata_map["author"] == "a test"
    assert [(v.name, v.shape) for v in (*session.get_inputs(), *session.get_outputs())] == [
        ("x", ["n", 3, 16, 16]),
        ("y", ["n", 512]),
    ]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"keep_float": ("c",)}, ("Conv", "asked to stay float")),
        ({"operators": ("MatMul",)}, ("Conv", "not among the operators asked for")),
    ],
)
def test_what_stays_float_is_told_with_its_reason(tmp_path: Path, options: dict, left: tuple[str, str]) -> None:
    """An operator kept float keeps float weights, and the report says why."""
    target = tmp_path / "int8.onnx"
    report = quantise(picture_model(tmp_path / "float.onnx"), target, samples(), **options)
    assert report.quantised == {"MatMul": 1}
    assert [(item.operator, item.reason) for item in report.left] == [left]
    weights = {tuple(t.dims): t.data_type for t in onnx.load(target).graph.initializer if len(t.dims) > 1}
    assert weights == {(CHANNELS, 3, 3, 3): TensorProto.FLOAT, (CHANNELS, 512): TensorProto.INT8}


def test_a_percentile_clips_outliers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One wild value among the samples makes every step coarse; a percentile leaves it out. Nothing is printed."""
    wild = samples()
    wild[0]["x"][0, 0, 0, 0] = 5000.0
    source = picture_model(tmp_path / "float.onnx")
    step = {}
    for percentile in (100.0, 99.9):
        quantise(source, tmp_path / "int8.onnx", wild, percentile=percentile)
        tensors = {t.name: t for t in onnx.load(tmp_path / "int8.onnx").graph.initializer}
        step[percentile] = float(numpy_helper.to_array(tensors["x_scale"]))
    assert step[99.9] < step[100.0] / 100
    assert capsys.readouterr().out == ""


def test_computed_weights_and_recurrent_layers_are_left(tmp_path: Path) -> None:
    """A product of two activations and an LSTM stay float and say why, and with nothing else there is nothing to do."""
    draw = np.random.default_rng(5)
    tensors = [
        numpy_helper.from_array(draw.normal(size=(1, 32, 8)).astype("f4"), "w"),
        numpy_helper.from_array(draw.normal(size=(1, 32, 8)).astype("f4"), "r"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["m"]),
        helper.make_node("LSTM", ["m", "w", "r"], ["", "y"], hidden_size=8),
    ]
    source = save(tmp_path / "float.onnx", nodes, tensors, [8, 8, 8], [1, 8, 8])
    with pytest.raises(InvalidModel, match=r"1 x its second input is computed.*; 1 x recurrent operators"):
        quantise(source, tmp_path / "int8.onnx", [{"x": draw.normal(size=(8, 8, 8)).astype("f4")}])
    assert not (tmp_path / "int8.onnx").exists()


def test_an_int8_model_is_not_quantised_again(tmp_path: Path) -> None:
    """A model with Q/DQ nodes is refused and named for what it is."""
    once = tmp_path / "int8.onnx"
    quantise(picture_model(tmp_path / "float.onnx"), once, samples())
    with pytest.raises(InvalidModel, match="already quantised"):
        quantise(once, tmp_path / "twice.onnx", samples())


def test_garbage_and_nothing_are_refused(tmp_path: Path) -> None:
    """A file that is not ONNX, an empty file and a missing one are InvalidModel, by name."""
    (tmp_path / "garbage.onnx").write_bytes(b"\x00garbage" * 50)
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("garbage.onnx", "empty.onnx", "missing.onnx"):
        with pytest.raises(InvalidModel, match=name):
            quantise(tmp_path / name, tmp_path / "int8.onnx", samples())


def test_calibration_must_fit_the_model(tmp_path: Path) -> None:
    """No samples, other names or a wild percentile are the caller's fault; a wrong shape is the engine's refusal."""
    source = picture_model(tmp_path / "float.onnx")
    target = tmp_path / "int8.onnx"
    with pytest.raises(InvalidRequest, match="calibration is empty"):
        quantise(source, target, [])
    with pytest.raises(InvalidRequest, match=r"sample 0: expected inputs \['x'\], got \['image'\]"):
        quantise(source, target, [{"image": samples()[0]["x"]}])
    with pytest.raises(InvalidRequest, match="percentile: expected more than 50"):
        quantise(source, target, samples(), percentile=0.999)
    with pytest.raises(EngineRefused, match="cannot quantise"):
        quantise(source, target, [{"x": np.zeros((1, 4, 16, 16), "f4")}])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["float.onnx"]


def test_a_failure_keeps_the_old_target(tmp_path: Path) -> None:
    """The target is replaced whole or stays what it was."""
    target = tmp_path / "int8.onnx"
    target.write_bytes(b"the one before")
    with pytest.raises(EngineRefused):
        quantise(picture_model(tmp_path / "float.onnx"), target, [{"x": np.zeros((1, 4, 16, 16), "f4")}])
    assert target.read_bytes() == b"the one before"


def test_importing_the_room_needs_no_library() -> None:
    """onnx and onnxruntime are imported only when something is quantised, and their absence is explained."""
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from pathlib import Path\n"
        "from inferd_runtime.quantisation import quantise\n"
        "from inferd_runtime.errors import Unsupported\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "try: quantise(Path('a'), Path('b'), [])\n"
        "except Unsupported as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "inferd[cpu,quantize]" in ran.stdout
