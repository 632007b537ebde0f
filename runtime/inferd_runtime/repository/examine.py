"""What a model file is, found without any engine and without believing the file: is it INT8, where, how fine.

Format by format: `onnx_file` walks the protobuf of an ONNX file, `_ir` parses OpenVINO's XML. Weights are measured by
their declared shape, never read. Whatever a hostile file does, the answer is a `Quantisation` or `InvalidModel`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from inferd_runtime.errors import InvalidModel
from inferd_runtime.repository.onnx_file import MAX_DIM, Graph, read_onnx
from inferd_runtime.spec import Quantisation

MAX_XML_BYTES = 256 << 20
MAX_XML_DEPTH = 64
_QDQ = {"QuantizeLinear", "DequantizeLinear"}
_DYNAMIC = {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "MatMulNBits"}
# ONNX's own quantised operators, and com.microsoft's, which all start with Q.
_QOPERATORS = {
    "QLinearConv", "QLinearMatMul", "QGemm", "QAttention", "QEmbedLayerNormalization", "QLinearAdd", "QLinearMul",
    "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu",
    "QLinearSoftmax", "QLinearReduceMean", "QLinearWhere", "QOrderedMatMul", "QOrderedAttention",
}  # fmt: skip
# Where an operator takes its quantised weights and their scales.
_WEIGHT_SCALES = {"QLinearConv": (3, 4), "QLinearMatMul": (3, 4), "QGemm": (3, 4), "QAttention": (1, 4)}
_IR_BYTES = {
    "f64": 8.0, "f32": 4.0, "f16": 2.0, "bf16": 2.0, "i8": 1.0, "u8": 1.0, "i4": 0.5, "u4": 0.5,
}  # fmt: skip
_IR_QUANTISED = {"i8", "u8", "i4", "u4"}


def examine(path: Path) -> Quantisation:
    """How the model at `path` is quantised; raises InvalidModel for a file that is not what its suffix says.

    A .tflite file is not looked into: its kind is "unknown".
    """
    if path.suffix == ".onnx":
        return _onnx(read_onnx(path))
    if path.suffix == ".xml":
        return _ir(_parse_xml(path))
    return Quantisation(kind="unknown")


def operators(path: Path) -> Mapping[str, int]:
    """How many operators of each type the model has, nothing where the file does not tell. Raises InvalidModel."""
    if path.suffix == ".onnx":
        return Counter(node.op for node in read_onnx(path).nodes)
    if path.suffix == ".xml":
        return Counter(layer.get("type", "") for layer in _parse_xml(path).iterfind("./layers/layer"))
    return {}


def external_locations(path: Path) -> tuple[str, ...]:
    """The files that an ONNX model says its weights lie in, as written there; sorted, each once."""
    return read_onnx(path).locations if path.suffix == ".onnx" else ()


def _onnx(model: Graph) -> Quantisation:
    weights = {tensor.name: tensor for tensor in model.tensors}
    ops = Counter(node.op for node in model.nodes)
    grain: set[str] = set()
    where: Counter[str] = Counter()
    users: dict[str, list[str]] = {}
    for node in model.nodes:
        for name in node.inputs:
            users.setdefault(name, []).append(node.op)
    for node in model.nodes:
        if node.op == "DequantizeLinear":
            weight, scale, consumers = node.input(0), node.input(1), users.get(node.output, [])
        elif node.op in _WEIGHT_SCALES:
            at_weight, at_scale = _WEIGHT_SCALES[node.op]
            weight, scale, consumers = node.input(at_weight), node.input(at_scale), [node.op]
        elif node.op in _DYNAMIC or node.op in _QOPERATORS:
            weight, scale, consumers = node.input(1), "", [node.op]
        else:
            continue
        if weight in weights and weights[weight].is_byte:
            where.update(consumers[:1] or [node.op])
            if scale in weights:
                grain.add("per-channel" if weights[scale].elements > 1 else "per-tensor")
    int8 = sum(tensor.nbytes for tensor in model.tensors if tensor.is_byte)
    floats = sum(tensor.nbytes for tensor in model.tensors if tensor.is_float)
    layout = _layout(ops)
    return Quantisation(
        kind=_kind(bool(where) or (bool(layout) and int8 > 0), int8, floats),
        layout=layout,
        granularity=_one(grain),
        where=dict(sorted(where.items())),
        int8_weight_bytes=int8,
        float_weight_bytes=floats,
        opset=model.opset,
    )


def _layout(ops: Counter[str]) -> str:
    """The commonest way of writing quantisation in this file."""
    if any(op in ops for op in _DYNAMIC):
        return "dynamic"
    if any(op in ops for op in _QOPERATORS):
        return "qoperator"
    return "qdq" if _QDQ & ops.keys() else ""


def _kind(is_quantised: bool, int8: float, floats: float) -> str:
    """INT8 where most weights are; mixed where some are."""
    if not is_quantised:
        return "float"
    return "int8" if int8 * 4 >= floats else "mixed"


def _one(found: set[str]) -> str:
    return "mixed" if len(found) > 1 else next(iter(found), "")


class _Builder(TreeBuilder):
    """A tree that refuses a document type (no entities, so no entity bombs) and deep nesting."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise InvalidModel("the model's XML has a document type, which no model needs")

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self._depth += 1
        if self._depth > MAX_XML_DEPTH:
            raise InvalidModel(f"the model's XML is nested deeper than {MAX_XML_DEPTH}")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def _parse_xml(path: Path) -> Element:
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise InvalidModel(f"{path.name} is larger than {MAX_XML_BYTES >> 20} MiB")
        # The builder refuses a document type as soon as it begins, before any entity can be used.
        parser = XMLParser(target=_Builder())  # noqa: S314
        with path.open("rb") as file:
            while chunk := file.read(1 << 16):
                parser.feed(chunk)
        root = parser.close()
    except (ParseError, ValueError, LookupError) as error:
        raise InvalidModel(f"{path.name} is not well-formed XML: {error}") from None
    except OSError as error:
        raise InvalidModel(f"{path.name} cannot be read: {error.strerror}") from None
    if not isinstance(root, Element) or root.tag != "net":
        raise InvalidModel(f"{path.name} is not an OpenVINO model: no <net> at its root")
    return root


def _ir(root: Element) -> Quantisation:
    """OpenVINO IR: FakeQuantize operations, or constants of 8 bits and less."""
    grain: set[str] = set()
    where: Counter[str] = Counter()
    int8 = floats = 0.0
    fakes = 0
    consumers = _consumers(root)
    for layer in root.iterfind("./layers/layer"):
        kind, data = layer.get("type", ""), layer.find("data")
        if kind == "FakeQuantize":
            fakes += 1
            grain.add(_fake_granularity(layer))
        if kind != "Const" or data is None:
            continue
        element = data.get("element_type", "")
        nbytes = _elements(data.get("shape", "")) * _IR_BYTES.get(element, 0.0)
        if element in _IR_QUANTISED:
            int8 += nbytes
            where.update([consumers.get(layer.get("id", ""), "Const")])
        else:
            floats += nbytes
    return Quantisation(
        kind=_kind(fakes > 0 or int8 > 0, int8, floats if int8 or not fakes else 0.0),
        layout="fakequantize" if fakes else "",
        granularity=_one(grain),
        where=dict(sorted(where.items())),
        int8_weight_bytes=int(int8),
        float_weight_bytes=int(floats),
    )


def _consumers(root: Element) -> dict[str, str]:
    """Layer id -> type of the operation its value ends in, looking through conversions and scales."""
    types = {layer.get("id", ""): layer.get("type", "") for layer in root.iterfind("./layers/layer")}
    following = {edge.get("from-layer", ""): edge.get("to-layer", "") for edge in root.iterfind("./edges/edge")}
    found: dict[str, str] = {}
    for start, kind in types.items():
        if kind != "Const":
            continue
        at, steps = following.get(start, ""), 0
        while types.get(at) in ("Convert", "Subtract", "Multiply", "Reshape", "FakeQuantize") and steps < 8:
            at, steps = following.get(at, ""), steps + 1
        found[start] = types.get(at, "Const")
    return found


def _fake_granularity(layer: Element) -> str:
    """Per channel where the ranges (inputs 1-4) have more than one element."""
    ports = layer.findall("./input/port")[1:]
    counts = (math.prod(_dim(dim.text) for dim in port.iterfind("dim")) for port in ports)
    return "per-channel" if any(count > 1 for count in counts) else "per-tensor"


def _elements(shape: str) -> int:
    return math.prod(_dim(part) for part in shape.split(",")[:32]) if shape.strip() else 1


def _dim(text: str | None) -> int:
    text = (text or "").strip()
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        return 1
    return min(int(text), MAX_DIM)
