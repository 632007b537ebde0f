"""What is said about a model file, and that no file, however hostile, gets anything but an answer or a refusal."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from inferd_runtime.errors import InvalidModel
from inferd_runtime.repository.examine import examine, external_locations, operators
from inferd_runtime.repository.onnx_file import MAX_DEPTH, read_onnx
from tests import onnx_models

Build = Callable[[Path], Path]
QUICK = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (onnx_models.mlp, ("float", "", "", {}, 17)),
        (onnx_models.qdq_per_tensor, ("int8", "qdq", "per-tensor", {"MatMul": 1}, 13)),
        (onnx_models.qdq_per_channel, ("int8", "qdq", "per-channel", {"MatMul": 1}, 13)),
        (lambda path: onnx_models.qdq_per_channel(path, opset=11), ("int8", "qdq", "per-channel", {"MatMul": 1}, 11)),
        (onnx_models.qoperator, ("int8", "qoperator", "per-tensor", {"QGemm": 1}, 13)),
        (onnx_models.dynamic_quantised, ("int8", "dynamic", "", {"MatMulInteger": 1}, 17)),
    ],
)
def test_onnx_files(build: Build, expected: tuple[object, ...], tmp_path: Path) -> None:
    """Kind, layout, granularity, place and opset are what the file was built with."""
    found = examine(build(tmp_path / "m.onnx"))
    assert (found.kind, found.layout, found.granularity, found.where, found.opset) == expected


def test_weight_bytes_are_those_of_the_tensors(tmp_path: Path) -> None:
    """Bytes are counted from types and shapes, as the onnx package sees them."""
    path = onnx_models.qdq_per_channel(tmp_path / "m.onnx")
    tensors = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    found = examine(path)
    assert found.int8_weight_bytes == sum(array.nbytes for array in tensors if array.dtype == np.int8)
    assert found.float_weight_bytes == sum(array.nbytes for array in tensors if array.dtype == np.float32)


def test_mostly_float_is_mixed(tmp_path: Path) -> None:
    """A file whose weights are mostly float, with some INT8, is called mixed."""
    small = onnx.load(onnx_models.qdq_per_channel(tmp_path / "a.onnx"))
    big = numpy_helper.from_array(np.zeros(4096, np.float32), "ballast")
    small.graph.initializer.append(big)
    onnx.save(small, tmp_path / "m.onnx")
    assert examine(tmp_path / "m.onnx").kind == "mixed"


def test_weights_in_constant_nodes_count(tmp_path: Path) -> None:
    """Paddle's exporter keeps weights in Constant nodes; they are found all the same."""
    model = onnx.load(onnx_models.qdq_per_channel(tmp_path / "a.onnx"))
    constants = [
        helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in list(model.graph.initializer)
    ]
    del model.graph.initializer[:]
    nodes = [*constants, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "m.onnx")
    found = examine(tmp_path / "m.onnx")
    assert (found.kind, found.granularity, found.where) == ("int8", "per-channel", {"MatMul": 1})


def test_external_locations_are_told(tmp_path: Path) -> None:
    """Every place that weights are said to lie in, also in graphs within nodes, as written."""
    outside = onnx_models.external_data(tmp_path / "m.onnx", "../../etc/x")
    assert external_locations(outside) == ("../../etc/x",)
    assert external_locations(onnx_models.mlp(tmp_path / "n.onnx")) == ()
    inner = onnx.load(outside, load_external_data=False).graph
    model = onnx.load(onnx_models.mlp(tmp_path / "n.onnx"))
    branches = {"then_branch": inner, "else_branch": inner}
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], **branches))
    (tmp_path / "o.onnx").write_bytes(model.SerializeToString())
    assert external_locations(tmp_path / "o.onnx") == ("../../etc/x",)


def test_inputs_and_outputs_with_their_symbols(tmp_path: Path) -> None:
    """Graph inputs and outputs come with sizes, symbols, or nothing for a dimension left open."""
    graph = read_onnx(onnx_models.two_inputs(tmp_path / "m.onnx", symbols=("N", "M")))
    assert [(value.name, value.dims) for value in graph.inputs] == [("a", ("N", 4)), ("b", ("M", 4))]
    assert [value.name for value in graph.outputs] == ["total", "difference"]


IR = """<?xml version="1.0"?><net name="m" version="11"><layers>
<layer id="0" name="x" type="Parameter"><data shape="?,16" element_type="f32"/></layer>
<layer id="1" name="w" type="Const"><data element_type="{kind}" shape="16, 4" offset="0" size="64"/></layer>
<layer id="2" name="c" type="Convert"/><layer id="3" name="s" type="Multiply"/>
{fake}<layer id="5" name="m" type="MatMul"/></layers>
<edges><edge from-layer="1" to-layer="2"/><edge from-layer="2" to-layer="3"/><edge from-layer="3" to-layer="5"/></edges>
</net>"""
FAKE = """<layer id="4" name="f" type="FakeQuantize"><input><port id="0"><dim>16</dim></port>
<port id="1"><dim>{channels}</dim></port><port id="2"/><port id="3"/><port id="4"/></input></layer>"""


@pytest.mark.parametrize(
    ("kind", "fake", "expected"),
    [
        ("f32", "", ("float", "", "", {}, 0, 256)),
        ("i8", "", ("int8", "", "", {"MatMul": 1}, 64, 0)),
        ("u4", "", ("int8", "", "", {"MatMul": 1}, 32, 0)),
        ("i8", FAKE.format(channels=16), ("int8", "fakequantize", "per-channel", {"MatMul": 1}, 64, 0)),
        ("f32", FAKE.format(channels=1), ("int8", "fakequantize", "per-tensor", {}, 0, 256)),
    ],
)
def test_openvino_ir(kind: str, fake: str, expected: tuple[object, ...], tmp_path: Path) -> None:
    """FakeQuantize and constants of few bits make an IR quantised."""
    path = tmp_path / "m.xml"
    path.write_text(IR.format(kind=kind, fake=fake))
    found = examine(path)
    seen = (found.kind, found.layout, found.granularity, found.where)
    assert (*seen, found.int8_weight_bytes, found.float_weight_bytes) == expected


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(12))
    + "]><net>&m;</net>"
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        '<!DOCTYPE net SYSTEM "file:///etc/passwd"><net/>',
        '<!DOCTYPE net [<!ENTITY x SYSTEM "file:///etc/passwd">]><net>&x;</net>',
        "<a>" * 5000,
        "<net><layers>",
        "<html/>",
        "",
        '<?xml version="1.0" encoding="no-such-code"?><net/>',
        "\x00\x01",
    ],
)
def test_hostile_xml_is_refused_at_once(text: str, tmp_path: Path) -> None:
    """Entity bombs, foreign entities, deep nesting and broken XML are InvalidModel, quickly."""
    path = tmp_path / "m.xml"
    path.write_text(text)
    started = time.perf_counter()
    with pytest.raises(InvalidModel):
        examine(path)
    assert time.perf_counter() - started < 5


def test_tflite_is_not_looked_into(tmp_path: Path) -> None:
    """A format that is not examined is called unknown, never float."""
    (tmp_path / "m.tflite").write_bytes(b"TFL3")
    assert examine(tmp_path / "m.tflite").kind == "unknown"


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = len(payload), b""
    while True:
        length += bytes([(size & 0x7F) | (0x80 if size > 0x7F else 0)])
        size >>= 7
        if not size:
            return bytes([number << 3 | 2]) + length + payload


def _nested(depth: int) -> bytes:
    graph = b""
    for _ in range(depth):
        graph = _field(1, _field(5, _field(6, graph)))
    return _field(7, graph)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"\x08\x08", "no graph"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends too early"),
        (b"\x3a" + b"\xff" * 20, "longer than ten bytes"),
        (b"\x3b", "wire type 3"),
        (b"\x00\x00", "field number 0"),
        (_nested(MAX_DEPTH + 2), "nested deeper"),
        (_nested(2000), "nested deeper"),
        (_field(7, _field(5, _field(8, b"n" * 5000))), "name longer"),
        (_field(7, _field(5, b"\x70\x01")), "no location"),
        (_field(7, b"\x08\x00" * 3_000_000), "more than"),
    ],
)
def test_hostile_onnx_is_refused_with_its_reason(content: bytes, why: str, tmp_path: Path) -> None:
    """Lying lengths, endless numbers, depth, and field floods are InvalidModel and bounded in time."""
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModel, match=why):
        examine(path)


def test_terabyte_shapes_cost_nothing(tmp_path: Path) -> None:
    """A tensor that claims 2^62 x 2^62 elements allocates nothing and overflows nowhere."""
    tensor = TensorProto(name="w", data_type=TensorProto.INT8, dims=[1 << 62, 1 << 62, -5 & 0x7FFF])
    graph = helper.make_graph([], "g", [], [], [tensor])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    assert examine(tmp_path / "m.onnx").int8_weight_bytes <= 1 << 48


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("samples")
    builds: list[Build] = [
        onnx_models.qdq_per_channel, onnx_models.qoperator, onnx_models.dynamic_quantised, onnx_models.two_inputs,
        lambda path: onnx_models.external_data(path, "w.bin"), lambda path: onnx_models.mlp(path, hidden=2),
    ]  # fmt: skip
    return [build(folder / "m.onnx").read_bytes() for build in builds]


def _either(path: Path) -> None:
    started = time.perf_counter()
    try:
        examine(path)
        external_locations(path)
    except InvalidModel:
        pass
    assert time.perf_counter() - started < 5


@QUICK
@given(st.data())
def test_mutated_files_never_raise_anything_else(samples: list[bytes], tmp_path: Path, data: st.DataObject) -> None:
    """Real files with bytes changed, cut and doubled give an answer or InvalidModel, and quickly."""
    content = bytearray(data.draw(st.sampled_from(samples)))
    for _ in range(data.draw(st.integers(0, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    start = data.draw(st.integers(0, len(content)))
    piece = content[start : start + data.draw(st.integers(0, 40))]
    content[start:start] = piece * data.draw(st.integers(0, 2))
    content = content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    _either(path)


@QUICK
@given(st.binary(max_size=200))
def test_noise_never_raises_anything_else(tmp_path: Path, content: bytes) -> None:
    """Any bytes at all, as ONNX and as XML."""
    for name in ("m.onnx", "m.xml"):
        (tmp_path / name).write_bytes(content)
        _either(tmp_path / name)


@QUICK
@given(st.data())
def test_mutated_ir_never_raises_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    """Real IR text with pieces replaced gives an answer or InvalidModel."""
    text = IR.format(kind="i8", fake=FAKE.format(channels=16))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.sampled_from(["", "<", '"', "9" * 40, "-1", "٣", "&#0;", "<layer/>", "f32", " "]))
        text = text[:start] + piece + text[start + data.draw(st.integers(0, 6)) :]
    path = tmp_path / "m.xml"
    path.write_text(text)
    _either(path)


def test_operators_are_counted(tmp_path: Path) -> None:
    """Of a model that tells; what the kind of model is guessed from."""
    assert operators(onnx_models.mlp(tmp_path / "m.onnx"))["MatMul"] > 0
    (tmp_path / "m.tflite").write_bytes(b"anything")
    assert operators(tmp_path / "m.tflite") == {}
