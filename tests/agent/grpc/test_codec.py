"""ModelInferRequest and ModelInferResponse: what goes through, and what is refused with a reason."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as triton

from inferd.protocol import DATATYPES, Limits, ProtocolError, Reference, RegionRef, Request
from inferd_agent.grpc.answers import encode, streamed
from inferd_agent.grpc.layouts import take_apart
from inferd_agent.grpc.requests import decode
from inferd_agent.grpc.shared_memory import origin_of
from inferd_agent.memory import Origin
from inferd_agent.sockets import PeerCredentials
from inferd_runtime import InvalidRequest

NUMBERS = [name for name in DATATYPES if name != "BYTES"]
TYPED = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-(1 << 15), 1]),
    "INT32": ("int_contents", [-(1 << 31), 1]),
    "INT64": ("int64_contents", [-(1 << 63), 1]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 65535]),
    "UINT32": ("uint_contents", [0, (1 << 32) - 1]),
    "UINT64": ("uint64_contents", [0, (1 << 64) - 1]),
    "FP32": ("fp32_contents", [0.5, float("inf")]),
    "FP64": ("fp64_contents", [0.1, -0.0]),
    "BYTES": ("bytes_contents", [b"\xff\x00", "grüße".encode()]),
}


def request(*tensors: tuple[str, str, list[int]], raw: list[bytes] | None = None, **more: Any) -> Any:
    message = triton.ModelInferRequest(model_name="m", raw_input_contents=raw or [], **more)
    for name, datatype, shape in tensors:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
    return message


@pytest.mark.parametrize("datatype", NUMBERS)
def test_raw_numbers_are_views_on_the_message(datatype: str) -> None:
    """Every datatype comes as it was sent, read-only, in its shape."""
    sent = np.arange(6).astype(DATATYPES[datatype]).reshape(2, 3)
    asked = decode(
        request(("x", datatype, [2, 3]), raw=[sent.tobytes()], id="7", model_version="3").SerializeToString()
    )
    [(name, array)] = asked.request.inputs.items()
    assert (name, asked.model, asked.version, asked.request.id) == ("x", "m", 3, "7")
    assert (array.dtype, array.shape) == (sent.dtype, sent.shape)
    assert array.tobytes() == sent.tobytes()
    assert not array.flags.writeable
    assert array.flags.aligned


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_are_read(datatype: str) -> None:
    """Every datatype that has typed contents, at the ends of its range."""
    field, values = TYPED[datatype]
    message = request(("x", datatype, [2, 1]))
    getattr(message.inputs[0].contents, field).extend(values)
    array = decode(message.SerializeToString()).request.inputs["x"]
    assert (array.dtype, array.shape) == (DATATYPES[datatype], (2, 1))
    assert array.ravel().tolist() == values
    assert not array.flags.writeable


def test_a_repeated_head_brings_new_data() -> None:
    """What is remembered of a request is neither its id nor its tensors."""
    for number in range(3):
        sent = np.full(4, number, np.float32)
        message = request(("x", "FP32", [4]), raw=[sent.tobytes()], id=str(number))
        asked = decode(message.SerializeToString())
        assert asked.request.id == str(number)
        np.testing.assert_array_equal(asked.request.inputs["x"], sent)


def test_parameters_and_outputs_are_read() -> None:
    """Timeout and priority in whatever integer they come, classes, and the wish for a last mark."""
    message = request(("x", "FP32", [0]), raw=[b""])
    message.parameters["timeout"].int64_param = 5
    message.parameters["priority"].uint64_param = 7
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    message.outputs.add(name="y").parameters["classification"].int64_param = 3
    asked = decode(message.SerializeToString())
    assert (asked.request.timeout_us, asked.request.priority, asked.wants_final) == (5, 7, True)
    [output] = asked.request.outputs
    assert (output.name, output.classification) == ("y", 3)


def put(tensor: Any, region: str, nbytes: int, offset: int = 0) -> None:
    """Let a tensor lie in a region."""
    tensor.parameters["shared_memory_region"].string_param = region
    tensor.parameters["shared_memory_byte_size"].int64_param = nbytes
    if offset:
        tensor.parameters["shared_memory_offset"].int64_param = offset


def wrong(change: str) -> Any:
    message = request(("x", "FP32", [2]), raw=[b"\0" * 8])
    tensor = message.inputs[0]
    match change:
        case "datatype":
            tensor.datatype = "FP8"
        case "size":
            message.raw_input_contents[0] = b"\0" * 7
        case "fewer":
            message.inputs.add(name="z", datatype="FP32", shape=[1])
        case "more":
            message.raw_input_contents.append(b"")
        case "both":
            tensor.contents.fp32_contents.extend([1, 2])
        case "none":
            del message.raw_input_contents[:]
        case "field":
            del message.raw_input_contents[:]
            tensor.contents.fp64_contents.extend([1, 2])
        case "fp16":
            del message.raw_input_contents[:]
            tensor.datatype = "FP16"
            tensor.contents.fp32_contents.extend([1, 2])
        case "count":
            del message.raw_input_contents[:]
            tensor.contents.fp32_contents.extend([1])
        case "range":
            del message.raw_input_contents[:]
            tensor.datatype = "INT8"
            tensor.contents.int_contents.extend([1, 300])
        case "negative":
            tensor.shape[0] = -2
        case "huge":
            tensor.shape.extend([1 << 62, 4])
        case "rank":
            tensor.shape.extend([1] * 40)
        case "twice":
            message.inputs.add(name="x", datatype="FP32", shape=[1])
            message.raw_input_contents.append(b"\0" * 4)
        case "output":
            message.outputs.add(name="y")
            message.outputs.add(name="y")
        case "region":
            tensor.parameters["shared_memory_region"].string_param = "r"
        case "region and contents":
            put(tensor, "r", 8)
            tensor.contents.fp32_contents.extend([1, 2])
        case "region's size":
            put(tensor, "r", 12)
        case "region's type":
            put(tensor, "r", 8)
            tensor.parameters["shared_memory_offset"].string_param = "0"
        case "region before":
            put(tensor, "r", 8, -1)
        case "region's sections":
            put(tensor, "r", 8)
        case "classes into a region":
            put(message.outputs.add(name="y"), "r", 8)
            message.outputs[0].parameters["classification"].int64_param = 2
        case "classes":
            message.outputs.add(name="y").parameters["classification"].string_param = "3"
        case "reserved":
            message.parameters["triton_x"].bool_param = True
        case "timeout":
            message.parameters["timeout"].int64_param = -1
    return message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("datatype", "'x': unknown datatype 'FP8'"),
        ("size", "'x': shape .* takes 8 bytes, its raw_input_contents has 7"),
        ("fewer", "'z' has no data"),
        ("more", "2 raw_input_contents came for 1 inputs"),
        ("both", "'x' has contents, beside raw_input_contents"),
        ("none", "'x' has neither contents nor"),
        ("field", "FP32 goes into fp32_contents, not fp64_contents"),
        ("fp16", "FP16 has no typed contents"),
        ("count", "has 2 elements, fp32_contents has 1"),
        ("range", "out of range for INT8"),
        ("negative", "dimensions of 0 or more"),
        ("huge", "'x'"),
        ("rank", "at most 32 dimensions"),
        ("twice", "input 'x' is given twice"),
        ("output", "output 'y' is given twice"),
        ("region", "'x': shared_memory_region 'r' comes without shared_memory_byte_size"),
        ("region and contents", "'x' has both contents and shared_memory_region"),
        ("region's size", "'x': shape .* takes 8 bytes, shared_memory_byte_size in region 'r' is 12"),
        ("region's type", "shared_memory_byte_size are int64_params"),
        ("region before", "'x': .* must be 0 or more"),
        ("region's sections", "1 raw_input_contents came for 0 inputs"),
        ("classes into a region", "'y': classification goes with no shared_memory_region"),
        ("classes", "classification must be an integer"),
        ("reserved", "'triton_x' is reserved"),
        ("timeout", "'timeout' must be an integer of 0 or more"),
    ],
)
def test_what_does_not_fit_is_refused(change: str, says: str) -> None:
    """Each with the tensor or field that is wrong."""
    with pytest.raises(ProtocolError, match=says):
        decode(wrong(change).SerializeToString())


def test_a_version_is_a_number() -> None:
    """As in REST."""
    with pytest.raises(InvalidRequest, match="plain decimal number"):
        decode(request(model_version="1.5").SerializeToString())


def test_what_protobuf_reads_is_bounded() -> None:
    """Too many tensors, or bytes outside of raw ones, are refused before protobuf takes many times their size."""
    with pytest.raises(ProtocolError, match="at most 1024 inputs"):
        decode(b"\x2a\x00" * 5000)
    with pytest.raises(ProtocolError, match="use raw_input_contents"):
        take_apart(b"\x0a\x20" + b"m" * 32, Limits(max_json_bytes=16))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_answered(data: bytes) -> None:
    """A request or a refusal, never anything else."""
    with contextlib.suppress(ProtocolError, InvalidRequest):
        decode(data)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_request_is_answered(data: st.DataObject) -> None:
    """A real request with bytes changed or cut off."""
    message = bytearray(request(("x", "FP32", [2, 2]), raw=[b"\0" * 16], id="i").SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError, InvalidRequest):
        decode(bytes(message[: data.draw(st.integers(0, len(message)))]))


def test_tensors_in_regions_take_no_raw_entry() -> None:
    """The others' entries are found in their order, and outputs keep their places."""
    message = request(("a", "INT8", [1]), ("x", "FP32", [2]), ("b", "INT8", [1]), raw=[b"\1", b"\2"])
    put(message.inputs[1], "r", 8, 16)
    put(message.outputs.add(name="y"), "s", 100)
    message.outputs.add(name="z")
    asked = decode(message.SerializeToString()).request
    assert {name: array.tolist() for name, array in asked.inputs.items()} == {"a": [1], "b": [2]}
    assert asked.references == (Reference("x", DATATYPES["FP32"], (2,), 2, RegionRef("r", 16, 8)),)
    assert [each.place for each in asked.outputs] == [RegionRef("s", 0, 100), None]
    y = np.zeros(2, np.float32)
    answer = triton.ModelInferResponse.FromString(encode(asked, "m", 3, {"z": y, "y": y}))
    assert [(each.name, list(each.shape)) for each in answer.outputs] == [("y", [2]), ("z", [2])]
    assert list(answer.raw_output_contents) == [b"", bytes(8)]


def test_a_request_of_nothing_but_regions() -> None:
    """It has no raw entries at all; one beside it may have typed contents."""
    message = request(("x", "FP32", [2]), ("t", "INT8", [1]))
    put(message.inputs[0], "r", 8)
    message.inputs[1].contents.int_contents.append(5)
    asked = decode(message.SerializeToString()).request
    assert list(asked.inputs) == ["t"]
    assert [each.name for each in asked.references] == ["x"]


@pytest.mark.parametrize(
    ("address", "is_local"),
    [("ipv4:127.0.0.1:50000", True), ("ipv6:%5B::1%5D:50000", True), ("ipv6:[::1]:50000", True), ("unix:", True),
     ("unix:/run/s", True), ("ipv4:10.0.0.1:50000", False), ("ipv6:%5Bfe80::1%25eth0%5D:5", False), ("unknown", False)],
)  # fmt: skip
def test_where_a_caller_sits(address: str, is_local: bool) -> None:
    """By what gRPC tells of the other end, unless the listener knows better."""
    assert origin_of(None, address) == Origin(is_local)
    assert origin_of(PeerCredentials(0, 7, 7), address) == Origin(True, 7)


def test_an_answer_is_what_triton_would_say() -> None:
    """Raw tensors in order, the id, empty tensors as empty bytes."""
    outputs = {
        "a": np.arange(3000, dtype=np.float32).reshape(30, 100),
        "b": np.array([b"x", "ü".encode()], object),
        "c": np.zeros((0, 2), np.int64),
    }
    answer = encode(Request(id="7"), "m", 3, outputs)
    read = triton.ModelInferResponse.FromString(answer)
    assert (read.model_name, read.model_version, read.id) == ("m", "3", "7")
    assert [(each.name, each.datatype, list(each.shape)) for each in read.outputs] == [
        ("a", "FP32", [30, 100]), ("b", "BYTES", [2]), ("c", "INT64", [0, 2]),
    ]  # fmt: skip
    assert list(read.raw_output_contents) == [outputs["a"].tobytes(), b"\1\0\0\0x\2\0\0\0\xc3\xbc", b""]
    final = triton.ModelStreamInferResponse.FromString(streamed(encode(Request(), "m", 3, outputs, is_final=True)))
    assert final.infer_response.parameters["triton_final_response"].bool_param
    assert not final.error_message
