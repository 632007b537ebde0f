"""Tiny real ONNX models that the tests of every room build where they need them.

Each builder writes one file, creates its folder and returns the path. Weights come from a fixed seed, so a builder
called twice gives the same bytes. First dimensions named "N" are free; every builder says what it takes and gives.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dim = int | str
IR_VERSION = 8
OPSET = 17

# V2 datatype names and the ONNX element types behind them.
ONNX_TYPES: dict[str, int] = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32, "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16, "INT32": TensorProto.INT32, "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16, "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE, "BYTES": TensorProto.STRING,
}  # fmt: skip
DATATYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(bool), "UINT8": np.dtype(np.uint8), "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32), "UINT64": np.dtype(np.uint64), "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16), "INT32": np.dtype(np.int32), "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16), "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64), "BYTES": np.dtype(object),
}  # fmt: skip
_FLOAT = TensorProto.FLOAT


def value(name: str, onnx_type: int, shape: Sequence[Dim]) -> onnx.ValueInfoProto:
    """A graph input or output."""
    return helper.make_tensor_value_info(name, onnx_type, list(shape))


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = OPSET,
    domains: dict[str, int] | None = None,
    check: bool = True,
) -> Path:
    """Write a model of these nodes; `domains` adds operator sets such as com.microsoft."""
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), tensors)
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(name, version) for name, version in (domains or {}).items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="inferd-tests")
    if check:
        onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def _rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


def _mlp_weights(features: int, hidden: int, classes: int) -> dict[str, np.ndarray]:
    rng = _rng()
    return {
        "w1": rng.normal(0, features**-0.5, (features, hidden)).astype(np.float32),
        "b1": rng.normal(0, 0.1, hidden).astype(np.float32),
        "w2": rng.normal(0, hidden**-0.5, (hidden, classes)).astype(np.float32),
        "b2": rng.normal(0, 0.1, classes).astype(np.float32),
    }


def mlp(path: Path, features: int = 64, classes: int = 10, batch: Dim = "N", hidden: int = 128) -> Path:
    """x FP32 [batch, features] -> probabilities FP32 [batch, classes]; see `mlp_reference`."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["m1"]),
        helper.make_node("Add", ["m1", "b1"], ["a1"]),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("MatMul", ["r1", "w2"], ["m2"]),
        helper.make_node("Add", ["m2", "b2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    ins, outs = [value("x", _FLOAT, [batch, features])], [value("probabilities", _FLOAT, [batch, classes])]
    return save(path, nodes, ins, outs, _mlp_weights(features, hidden, classes))


def mlp_reference(x: np.ndarray, classes: int = 10, hidden: int = 128) -> np.ndarray:
    """What `mlp` gives for `x`, by numpy."""
    w = _mlp_weights(x.shape[1], hidden, classes)
    logits = np.maximum(x @ w["w1"] + w["b1"], 0) @ w["w2"] + w["b2"]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def identity(path: Path, datatype: str = "FP32", shape: Sequence[Dim] = ("N", 4)) -> Path:
    """x -> y, the same values, for any V2 datatype name."""
    kind = ONNX_TYPES[datatype]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return save(path, nodes, [value("x", kind, shape)], [value("y", kind, shape)])


def two_inputs(path: Path, width: int = 4, symbols: tuple[Dim, Dim] = ("N", "N")) -> Path:
    """a, b FP32 [N, width] -> total = a + b, difference = a - b, both FP32 [N, width]."""
    nodes = [helper.make_node("Add", ["a", "b"], ["total"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    ins = [value("a", _FLOAT, [symbols[0], width]), value("b", _FLOAT, [symbols[1], width])]
    outs = [value("total", _FLOAT, [symbols[0], width]), value("difference", _FLOAT, [symbols[0], width])]
    return save(path, nodes, ins, outs)


def fixed_batch(path: Path, batch: int = 4, width: int = 3) -> Path:
    """x FP32 [batch, width] -> y = 2x; the first dimension is fixed."""
    nodes = [helper.make_node("Mul", ["x", "two"], ["y"])]
    shape = [batch, width]
    weights = {"two": np.array(2, np.float32)}
    return save(path, nodes, [value("x", _FLOAT, shape)], [value("y", _FLOAT, shape)], weights)


def in_place(path: Path) -> Path:
    """x FP32 [2, 8] -> y = (relu(x) + 1) reshaped to [16]: every step could be done in the input's own memory."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Add", ["r", "one"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["y"]),
    ]
    weights = {"one": np.ones(8, np.float32), "shape": np.array([16], np.int64)}
    return save(path, nodes, [value("x", _FLOAT, [2, 8])], [value("y", _FLOAT, [16])], weights)


def no_batch(path: Path) -> Path:
    """x FP32 [T] -> total FP32 scalar (rank 0): no batch dimension although x is free."""
    nodes = [helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0)]
    return save(path, nodes, [value("x", _FLOAT, ["T"])], [value("total", _FLOAT, [])])


def scalar(path: Path) -> Path:
    """x FP32 scalar -> y = 2x, scalar."""
    nodes = [helper.make_node("Mul", ["x", "two"], ["y"])]
    weights = {"two": np.array(2, np.float32)}
    return save(path, nodes, [value("x", _FLOAT, [])], [value("y", _FLOAT, [])], weights)


def string_upper(path: Path, shape: Sequence[Dim] = ("N",)) -> Path:
    """text BYTES -> upper BYTES, upper-cased (ONNX Runtime only)."""
    nodes = [
        helper.make_node(
            "StringNormalizer", ["text"], ["upper"], case_change_action="UPPER", is_case_sensitive=1, locale="C"
        )
    ]
    kind = TensorProto.STRING
    return save(path, nodes, [value("text", kind, shape)], [value("upper", kind, shape)])


def string_identity(path: Path, shape: Sequence[Dim] = ("N", 1)) -> Path:
    """x BYTES -> y BYTES, the same (ONNX Runtime only)."""
    return identity(path, "BYTES", shape)


def dynamic_width(path: Path) -> Path:
    """x FP32 [N, W] -> y FP32 [N, W] = x + 1, mean FP32 [N, 1]: both dimensions are free."""
    nodes = [
        helper.make_node("Add", ["x", "one"], ["y"]),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1),
    ]
    outs = [value("y", _FLOAT, ["N", "W"]), value("mean", _FLOAT, ["N", 1])]
    return save(path, nodes, [value("x", _FLOAT, ["N", "W"])], outs, {"one": np.array(1, np.float32)})


def dynamic_output(path: Path) -> Path:
    """x FP32 [T] -> where INT64 [1, K], the indices of the values that are not zero: K depends on the values."""
    nodes = [helper.make_node("NonZero", ["x"], ["where"])]
    return save(path, nodes, [value("x", _FLOAT, ["T"])], [value("where", TensorProto.INT64, [1, "K"])])


def optional_input(path: Path) -> Path:
    """x FP32 [N, 4] -> y = x * scale, where scale (3.0) is a graph input with an initializer, so not asked for."""
    nodes = [helper.make_node("Mul", ["x", "scale"], ["y"])]
    ins = [value("x", _FLOAT, ["N", 4]), value("scale", _FLOAT, [1])]
    return save(path, nodes, ins, [value("y", _FLOAT, ["N", 4])], {"scale": np.array([3], np.float32)})


def _quantise(weights: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 weights and their scale, one per tensor or one per index of `axis`."""
    axes = tuple(i for i in range(weights.ndim) if i != axis) if axis is not None else None
    scale = np.maximum(np.abs(weights).max(axis=axes), 1e-6).astype(np.float32) / np.float32(127)
    spread = scale if axis is None else np.expand_dims(scale, tuple(i for i in range(weights.ndim) if i != axis))
    return np.round(weights / spread).astype(np.int8), scale


def _qdq(path: Path, features: int, classes: int, axis: int | None, opset: int) -> Path:
    weights = _rng().normal(0, 0.3, (features, classes)).astype(np.float32)
    w_q, w_scale = _quantise(weights, axis)
    constants = {
        "w_q": w_q,
        "w_scale": w_scale,
        "w_zero": np.zeros(w_scale.shape, np.int8),
        "x_scale": np.array(0.05, np.float32),
        "x_zero": np.array(0, np.int8),
        "bias": np.linspace(-1, 1, classes).astype(np.float32),
    }
    per_axis = {} if axis is None or opset < 13 else {"axis": axis}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "x_scale", "x_zero"], ["x_d"]),
        helper.make_node("DequantizeLinear", ["w_q", "w_scale", "w_zero"], ["w_d"], **per_axis),
        helper.make_node("MatMul", ["x_d", "w_d"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["y"]),
    ]
    ins, outs = [value("x", _FLOAT, ["N", features])], [value("y", _FLOAT, ["N", classes])]
    return save(path, nodes, ins, outs, constants, opset=opset, check=False)


def qdq_per_tensor(path: Path, features: int = 16, classes: int = 4, opset: int = 13) -> Path:
    """x FP32 [N, features] -> y FP32 [N, classes], INT8 QDQ with one scale for the weights."""
    return _qdq(path, features, classes, None, opset)


def qdq_per_channel(path: Path, opset: int = 13, features: int = 16, classes: int = 4) -> Path:
    """The same with one weight scale per column; at opset 11 the file is what old quantisers wrote.

    Per-axis DequantizeLinear came with opset 13: ONNX Runtime takes an `axis` at opset 11, OpenVINO refuses the file.
    """
    return _qdq(path, features, classes, 1, opset)


def qoperator(path: Path, features: int = 16, classes: int = 4) -> Path:
    """x FP32 [N, features] -> y FP32 [N, classes] by com.microsoft.QGemm, which OpenVINO refuses."""
    w_q, w_scale = _quantise(_rng().normal(0, 0.3, (features, classes)).astype(np.float32), None)
    constants = {
        "w_q": w_q,
        "w_scale": w_scale,
        "zero": np.array(0, np.int8),
        "x_scale": np.array(0.05, np.float32),
        "bias_q": np.zeros(classes, np.int32),
        "y_scale": np.array(0.05, np.float32),
    }
    gemm_inputs = ["x_q", "x_scale", "zero", "w_q", "w_scale", "zero", "bias_q", "y_scale", "zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "zero"], ["x_q"]),
        helper.make_node("QGemm", gemm_inputs, ["y_q"], domain="com.microsoft", alpha=1.0),
        helper.make_node("DequantizeLinear", ["y_q", "y_scale", "zero"], ["y"]),
    ]
    ins, outs = [value("x", _FLOAT, ["N", features])], [value("y", _FLOAT, ["N", classes])]
    return save(path, nodes, ins, outs, constants, opset=13, domains={"com.microsoft": 1}, check=False)


def dynamic_quantised(path: Path, features: int = 16, classes: int = 4) -> Path:
    """x FP32 [N, features] -> y FP32 [N, classes]: dynamic quantisation, MatMulInteger on values scaled at run time."""
    w_q, w_scale = _quantise(_rng().normal(0, 0.3, (features, classes)).astype(np.float32), None)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["x_q", "x_scale", "x_zero"]),
        helper.make_node("MatMulInteger", ["x_q", "w_q", "x_zero"], ["m_q"]),
        helper.make_node("Cast", ["m_q"], ["m"], to=_FLOAT),
        helper.make_node("Mul", ["x_scale", "w_scale"], ["scale"]),
        helper.make_node("Mul", ["m", "scale"], ["y"]),
    ]
    ins, outs = [value("x", _FLOAT, ["N", features])], [value("y", _FLOAT, ["N", classes])]
    return save(path, nodes, ins, outs, {"w_q": w_q, "w_scale": w_scale})


def slow(path: Path, layers: int = 256, width: int = 512) -> Path:
    """x FP32 [N, width] -> y FP32 [N, width] by `layers` MatMuls of width x width.

    One row costs 2 * layers * width**2 operations and reads 4 * layers * width**2 bytes: the defaults take some
    milliseconds on one core; double `layers` for double the time. All layers share one weight, so the file is small.
    """
    weight = np.linalg.qr(_rng().normal(size=(width, width)))[0].astype(np.float32)
    names = ["x", *(f"h{i}" for i in range(1, layers)), "y"]
    nodes = []
    for before, after in itertools.pairwise(names):
        nodes += [
            helper.make_node("MatMul", [before, "w"], [f"{after}_m"]),
            helper.make_node("Tanh", [f"{after}_m"], [after]),
        ]
    ins, outs = [value("x", _FLOAT, ["N", width])], [value("y", _FLOAT, ["N", width])]
    return save(path, nodes, ins, outs, {"w": weight})


def looping(path: Path, width: int = 256, always: int = 0) -> Path:
    """turns INT64 [1] -> y FP32 [width, width] by `turns + always` MatMuls: as long as one likes, and never batched.

    One turn takes 2 * width**3 operations: some hundred microseconds on one core.
    """
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["h_out"]),
            helper.make_node("Identity", ["go"], ["go_out"]),
        ],
        "turn",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("h", _FLOAT, [width, width])],
        [value("go_out", TensorProto.BOOL, []), value("h_out", _FLOAT, [width, width])],
    )
    nodes = [
        helper.make_node("Squeeze", ["turns"], ["asked"]),
        helper.make_node("Add", ["asked", "always"], ["count"]),
        helper.make_node("Loop", ["count", "yes", "w"], ["y"], body=body),
    ]
    weight = np.linalg.qr(_rng().normal(size=(width, width)))[0].astype(np.float32)
    ins, outs = [value("turns", TensorProto.INT64, [1])], [value("y", _FLOAT, [width, width])]
    return save(path, nodes, ins, outs, {"w": weight, "yes": np.array(True), "always": np.array(always, np.int64)})


def faulting(path: Path, size: int = 8) -> Path:
    """index INT64 [N, 1] -> y FP32 [N, 1] = index * 10; an index outside [-size, size) fails the whole run.

    The fault is ONNX Runtime's: OpenVINO's Gather gives 0 for an index out of range.
    """
    nodes = [helper.make_node("Gather", ["table", "index"], ["y"], axis=0)]
    table = np.arange(size, dtype=np.float32) * 10
    ins, outs = [value("index", TensorProto.INT64, ["N", 1])], [value("y", _FLOAT, ["N", 1])]
    return save(path, nodes, ins, outs, {"table": table})


def faulting_reshape(path: Path) -> Path:
    """x FP32 [4], shape INT64 [2] -> y FP32 of that shape; a shape of other than four values fails in every engine."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    ins = [value("x", _FLOAT, [4]), value("shape", TensorProto.INT64, [2])]
    return save(path, nodes, ins, [value("y", _FLOAT, ["A", "B"])])


def external_data(path: Path, location: str, width: int = 4) -> Path:
    """x FP32 [N, width] -> y = x @ w, where w's values are said to lie in the file `location` (not written here)."""
    tensor = TensorProto(name="w", data_type=_FLOAT, dims=[width, width], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", "0"), ("length", str(4 * width * width))):
        tensor.external_data.add(key=key, value=text)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ins, outs = [value("x", _FLOAT, ["N", width])], [value("y", _FLOAT, ["N", width])]
    graph = helper.make_graph(nodes, "g", ins, outs, [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path
