"""Wire bytes written by hand: what clients send, and what they must get."""

from __future__ import annotations

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from inferd.protocol import DATATYPES, Request, decode_request, decode_response, encode_request, encode_response
from inferd.protocol.requests import OutputRequest


def golden_request(datatype: str, shape: list[int], raw: bytes) -> tuple[int, bytes]:
    header = json.dumps(
        {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}]}
    ).encode()
    return len(header), header + raw


GOLDEN = [
    ("BOOL", [3], b"\x01\x00\x01", [True, False, True]),
    ("UINT8", [2], b"\x00\xff", [0, 255]),
    ("UINT16", [1], b"\x01\x02", [0x0201]),
    ("UINT32", [1], b"\x01\x00\x00\x80", [0x80000001]),
    ("UINT64", [1], b"\xff" * 8, [(1 << 64) - 1]),
    ("INT8", [2], b"\x80\x7f", [-128, 127]),
    ("INT16", [1], b"\x00\x80", [-32768]),
    ("INT32", [1, 1], b"\xfe\xff\xff\xff", [-2]),
    ("INT64", [1], b"\x00" * 7 + b"\x80", [-(1 << 63)]),
    ("FP16", [2], b"\x00\x3c\x00\xc0", [1.0, -2.0]),
    ("BF16", [2], b"\x80\x3f\x00\xc0", [1.0, -2.0]),
    ("FP32", [2], b"\x00\x00\x80\x3f\x00\x00\x00\x80", [1.0, -0.0]),
    ("FP64", [1], b"\x00\x00\x00\x00\x00\x00\xf0\x3f", [1.0]),
    ("BYTES", [2], b"\x03\x00\x00\x00abc\x00\x00\x00\x00", [b"abc", b""]),
]


@pytest.mark.parametrize(("datatype", "shape", "raw", "values"), GOLDEN, ids=[row[0] for row in GOLDEN])
def test_binary_bytes_mean_these_values(datatype: str, shape: list[int], raw: bytes, values: list[object]) -> None:
    """Every datatype is little-endian, row-major and unpadded, in both directions."""
    length, body = golden_request(datatype, shape, raw)
    array = decode_request(body, length).inputs["x"]
    assert array.shape == tuple(shape)
    assert array.dtype == DATATYPES[datatype]
    assert array.ravel().tolist() == values
    assert not array.flags.writeable
    header_length, buffers = encode_request({"x": array})
    assert header_length is not None
    assert b"".join(buffers)[header_length:] == raw


def test_all_datatypes_have_golden_bytes() -> None:
    """The table above leaves none out."""
    assert {row[0] for row in GOLDEN} == set(DATATYPES)


def test_request_as_the_python_client_writes_it() -> None:
    """Two inputs in order, JSON beside binary, flags and id."""
    header = (
        b'{"id":"7","parameters":{"sequence_id":0,"sequence_start":false,"sequence_end":false,"priority":2,'
        b'"timeout":5000,"binary_data_output":true},"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32",'
        b'"parameters":{"binary_data_size":8}},{"name":"b","shape":[2],"datatype":"INT64","data":[5,-5]},'
        b'{"name":"c","shape":[1],"datatype":"UINT8","parameters":{"binary_data_size":1}}]}'
    )
    request = decode_request(header + struct.pack("<ff", 1.5, -2.5) + b"\x09", len(header))
    assert request.id == "7"
    assert list(request.inputs) == ["a", "b", "c"]
    assert request.inputs["a"].tolist() == [[1.5, -2.5]]
    assert request.inputs["b"].tolist() == [5, -5]
    assert request.inputs["c"].tolist() == [9]
    assert (request.timeout_us, request.priority, request.binary_default) == (5000, 2, True)
    assert request.parameters["sequence_id"] == 0


def test_request_as_the_cpp_client_writes_it() -> None:
    """An empty id, every output named with binary_data, a header length equal to the body of pure JSON."""
    body = (
        b'{"id":"","inputs":[{"name":"x","shape":[1],"datatype":"INT32","data":[1]}],"outputs":[{"name":"y",'
        b'"parameters":{"binary_data":true}},{"name":"z","parameters":{"classification":3}},{"name":"w"}]}'
    )
    request = decode_request(body, len(body))
    assert request.id == ""
    assert request.outputs == (OutputRequest("y", True), OutputRequest("z", False, 3), OutputRequest("w"))


def test_request_as_the_kserve_client_writes_it() -> None:
    """model_name in the body and unknown fields are ignored, nulls stand for absent."""
    body = (
        b'{"id":"u","model_name":"m","outputs":null,"parameters":null,"inputs":[{"name":"x","shape":[2,1],'
        b'"datatype":"BOOL","parameters":{},"data":[[true],[false]]}]}'
    )
    assert decode_request(body).inputs["x"].tolist() == [[True], [False]]


OUTPUTS = {"y": np.array([[1.0, 0.1]], np.float32), "z": np.array([b"hi"], object)}


def test_json_response_is_flat_and_has_no_parameters() -> None:
    """Doubles of float32 values, flat data, no `parameters`, no header length."""
    length, buffers = encode_response(Request(id="7"), "m", "1", OUTPUTS)
    assert length is None
    assert b"".join(buffers) == (
        b'{"model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],'
        b'"data":[1.0,0.10000000149011612]},{"name":"z","datatype":"BYTES","shape":[1],"data":["hi"]}],"id":"7"}'
    )


def test_binary_response_sends_sections_in_order() -> None:
    """The header, padded with spaces, then the sections in the order of `outputs`."""
    length, buffers = encode_response(Request(binary_default=True), "m", "1", OUTPUTS)
    body = b"".join(buffers)
    assert length is not None
    assert length % 16 == 0
    assert body[:length].rstrip() == (
        b'{"model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],'
        b'"parameters":{"binary_data_size":8}},{"name":"z","datatype":"BYTES","shape":[1],'
        b'"parameters":{"binary_data_size":6}}]}'
    )
    assert body[length:] == struct.pack("<ff", 1.0, np.float32(0.1)) + b"\x02\x00\x00\x00hi"


def test_requested_outputs_come_alone_in_the_order_asked() -> None:
    """Each in its own form; one asked without binary_data is JSON even when binary is the default."""
    request = Request(outputs=(OutputRequest("z"), OutputRequest("y", True)), binary_default=True)
    length, buffers = encode_response(request, "m", "1", OUTPUTS)
    response = decode_response(b"".join(buffers), length)
    assert list(response.outputs) == ["z", "y"]
    assert b'"data":["hi"]' in b"".join(buffers)


def test_only_empty_binary_outputs_make_a_plain_json_response() -> None:
    """binary_data_size 0 is told, but there is no section and no header length."""
    length, buffers = encode_response(Request(binary_default=True), "m", "1", {"y": np.zeros((0, 4), np.float32)})
    assert length is None
    assert b'"parameters":{"binary_data_size":0}' in buffers[0]
    assert decode_response(b"".join(buffers), length).outputs["y"].shape == (0, 4)


def test_nan_is_written_as_the_other_servers_do() -> None:
    """Bare words, which their clients read."""
    values = np.array([np.nan, np.inf, -np.inf, 1.0])
    _, buffers = encode_response(Request(), "m", "1", {"y": values})
    assert b'"data":[NaN,Infinity,-Infinity,1.0]' in buffers[0]
    np.testing.assert_array_equal(decode_response(buffers[0]).outputs["y"], values)


def test_special_bits_survive_binary() -> None:
    """NaN payloads, negative zero and denormals arrive bit for bit."""
    bits = np.array([0x7FC00123, 0x80000000, 0x00000001, 0xFF800000], np.uint32)
    length, buffers = encode_request({"x": bits.view(np.float32)})
    array = decode_request(b"".join(buffers), length).inputs["x"]
    assert array.view(np.uint32).tolist() == bits.tolist()


def test_bool_bytes_beside_one_read_as_true() -> None:
    """As other servers read them; the result is a proper bool array."""
    length, body = golden_request("BOOL", [4], b"\x00\x01\x02\xff")
    array = decode_request(body, length).inputs["x"]
    assert array.tolist() == [False, True, True, True]
    assert array.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_aligned_sections_are_views_and_others_are_copies() -> None:
    """Only a section that begins off its item size costs a copy."""
    array = np.arange(8, dtype=np.float32)
    length, buffers = encode_request({"x": array})
    body = bytearray(b"".join(buffers))
    octets = np.frombuffer(body, np.uint8)
    aligned = decode_request(body, length).inputs["x"]
    assert np.shares_memory(aligned, octets)
    assert not aligned.flags.writeable
    shifted = memoryview(bytearray(b"_" + body))[1:]
    copied = decode_request(shifted, length).inputs["x"]
    assert not np.shares_memory(copied, np.frombuffer(shifted, np.uint8))
    assert not copied.flags.writeable
    assert copied.tolist() == array.tolist()


def test_bf16_is_sent_as_its_own_bits() -> None:
    """Two bytes an element, also for arrays large enough to be sent as views."""
    array = np.ones(20_000, ml_dtypes.bfloat16)
    length, buffers = encode_request({"x": array})
    assert memoryview(buffers[1]).nbytes == 40_000
    assert decode_request(b"".join(buffers), length).inputs["x"].dtype == array.dtype
