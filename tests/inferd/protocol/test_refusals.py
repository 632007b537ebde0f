"""What the decoder refuses, and that it says why without allocating what was claimed."""

from __future__ import annotations

import numpy as np
import pytest

from inferd.protocol import Limits, ProtocolError, Request, decode_request, encode_response, parse_header_length
from inferd.protocol.datatypes import as_tensor, datatype_of
from inferd.protocol.requests import OutputRequest


def with_input(datatype: str, shape: str, data: str) -> bytes:
    return f'{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}'.encode()


def with_field(field: str) -> bytes:
    return f'{{"inputs":[{{"name":"x","shape":[1],"datatype":"INT8","data":[1]}}],{field}}}'.encode()


JSON_REFUSALS = {
    "empty body": (b"", "body is empty"),
    "not an object": (b"[]", "Expected `object`"),
    "no inputs": (b"{}", "missing required field `inputs`"),
    "truncated": (b'{"inputs":[', "truncated"),
    "not UTF-8": (b'{"inputs":[],"id":"\xff"}', "utf-8"),
    "trailing text": (b'{"inputs":[]} x', "trailing"),
    "deep nesting": (with_input("INT8", "[1]", "[" * 100_000 + "]" * 100_000), "nested too deep"),
    "deep nesting elsewhere": (with_field('"other":' + "[" * 100_000 + "]" * 100_000), "nested too deep"),
    "nested deeper than the shape": (with_input("INT8", "[1]", "[[1]]"), "nested 2 deep"),
    "million digits": (with_input("INT64", "[1]", f"[{'9' * 1_000_000}]"), "out of range"),
    "million digits in a shape": (with_input("INT8", f"[{'9' * 1_000_000}]", "[1]"), "shape"),
    "million digits in a parameter": (with_field(f'"parameters":{{"a":{"9" * 1_000_000}}}'), "request"),
    "product overflow": (with_input("FP32", f"[{1 << 62},4]", "[]"), "cannot hold so many"),
    "terabytes": (with_input("FP32", f"[1,{1 << 40}]", "[1,2,3,4]"), "cannot hold so many"),
    "huge and empty": (with_input("FP32", f"[0,{1 << 62}]", "[]"), "too large"),
    "rank": (with_input("FP32", str([1] * 33), "[1]"), "length <= 32"),
    "negative dimension": (with_input("FP32", "[-1]", "[1]"), "shape"),
    "fractional dimension": (with_input("FP32", "[1.5]", "[1]"), "shape"),
    "too few elements": (with_input("FP32", "[2]", "[1]   "), "has 2 elements, data has 1"),
    "too many elements": (with_input("FP32", "[2]", "[1,2,3]"), "has 2 elements, data has 3"),
    "nested otherwise": (with_input("FP32", "[1,2]", "[[1],[2]]"), r"nested as \[2, 1\]"),
    "uneven": (with_input("FP32", "[2,2]", "[[1,2],[3]]"), "unevenly"),
    "uneven text": (with_input("BYTES", "[2,2]", '[["a","b"],["c"]]'), "unevenly"),
    "mixed depth": (with_input("FP32", "[2]", "[1,[2]]"), "got `array`"),
    "no array": (with_input("FP32", "[1]", "1"), "must be an array"),
    "null data": (with_input("FP32", "[1]", "null"), "neither data nor"),
    "INT8 range": (with_input("INT8", "[1]", "[128]"), "<= 127"),
    "UINT8 sign": (with_input("UINT8", "[1]", "[-1]"), ">= 0"),
    "UINT64 range": (with_input("UINT64", "[1]", f"[{1 << 64}]"), "out of range for UINT64"),
    "INT64 range": (with_input("INT64", "[1]", f"[{1 << 63}]"), "out of range for INT64"),
    "FP32 range": (with_input("FP32", "[1]", "[1e39]"), "out of range for FP32"),
    "FP64 range": (with_input("FP64", "[1]", "[1e999]"), "out of range"),
    "fraction for an integer": (with_input("INT8", "[1]", "[1.5]"), "Expected `int`"),
    "bool for a number": (with_input("FP32", "[1]", "[true]"), "Expected `float`"),
    "number for a bool": (with_input("BOOL", "[1]", "[1]"), "Expected `bool`"),
    "number for text": (with_input("BYTES", "[1]", "[1]"), "Expected `str`"),
    "quoted NaN": (with_input("FP32", "[1]", '["NaN"]'), "Expected `float`"),
    "NaN for an integer": (with_input("INT8", "[1]", "[NaN]"), "Expected `int`"),
    "NaN for text": (with_input("BYTES", "[1]", "[NaN]"), "Expected `str`"),
    "NaN for a parameter": (with_field('"parameters":{"a":NaN}'), "request"),
    "half a NaN": (with_input("FP32", "[1]", "[NaNN]"), "malformed"),
    "FP16 as JSON": (with_input("FP16", "[1]", "[1]"), "use binary"),
    "BF16 as JSON": (with_input("BF16", "[1]", "[1]"), "use binary"),
    "unknown datatype": (with_input("FP8", "[1]", "[1]"), "unknown datatype 'FP8'"),
    "output twice": (with_field('"outputs":[{"name":"y"},{"name":"y"}]'), "twice"),
    "classes into a region": (
        with_field(
            '"outputs":[{"name":"y","parameters":{"classification":2,"shared_memory_region":"r",'
            '"shared_memory_byte_size":8}}]'
        ),
        "'y': classification goes with no shared_memory_region",
    ),
    "a place for an output without a size": (
        with_field('"outputs":[{"name":"y","parameters":{"shared_memory_region":"r"}}]'),
        "'y': shared_memory_region 'r' comes without shared_memory_byte_size",
    ),
    "a place for an output without a region": (
        with_field('"outputs":[{"name":"y","parameters":{"shared_memory_region":"","shared_memory_byte_size":8}}]'),
        "'y': shared_memory_region is empty",
    ),
    "no classes": (with_field('"outputs":[{"name":"y","parameters":{"classification":0}}]'), ">= 1"),
    "id of another type": (with_field('"id":7'), "Expected `str"),
    "timeout text": (with_field('"parameters":{"timeout":"5"}'), "'timeout' must be an integer"),
    "timeout below 0": (with_field('"parameters":{"timeout":-5}'), "'timeout' must be an integer"),
    "priority flag": (with_field('"parameters":{"priority":true}'), "'priority' must be an integer"),
    "sequence flag": (with_field('"parameters":{"sequence_start":1}'), "'sequence_start' must be true or false"),
    "sequence id": (with_field('"parameters":{"sequence_id":1.5}'), "'sequence_id' must be"),
    "a sequence by number": (with_field('"parameters":{"sequence_id":3}'), "sequences are not supported"),
    "a sequence by name": (with_field('"parameters":{"sequence_id":"a"}'), "sequences are not supported"),
    "a sequence begins": (with_field('"parameters":{"sequence_start":true}'), "sequences are not supported"),
    "integer parameter range": (with_field(f'"parameters":{{"a":{1 << 64}}}'), "'a' is out of range"),
    "reserved parameter": (with_field('"parameters":{"triton_x":1}'), "'triton_x' is reserved"),
    "nested parameter": (with_field('"parameters":{"a":[1]}'), "parameters"),
    "binary_data_output text": (with_field('"parameters":{"binary_data_output":"yes"}'), "must be true or false"),
}


@pytest.mark.parametrize("case", JSON_REFUSALS)
def test_json_is_refused_with_a_reason(case: str) -> None:
    """Each malformed request has a message that names the place."""
    body, reason = JSON_REFUSALS[case]
    with pytest.raises(ProtocolError, match=reason):
        decode_request(body)


def binary(parameters: str, *, shape: str = "[2]", extra: str = "") -> bytes:
    return f'{{"inputs":[{{"name":"x","shape":{shape},"datatype":"FP32","parameters":{parameters}{extra}}}]}}'.encode()


BINARY_REFUSALS = {
    "missing bytes": (binary('{"binary_data_size":8}'), b"1234", "'x': binary_data_size is 8, 4 bytes are left"),
    "left-over bytes": (binary('{"binary_data_size":8}'), b"123456789", "1 bytes are left over"),
    "size against shape": (binary('{"binary_data_size":4}'), b"1234", r"'x': shape \[2\] .* takes 8 bytes"),
    "negative size": (binary('{"binary_data_size":-8}'), b"", ">= 0"),
    "product overflow": (binary('{"binary_data_size":0}', shape=f"[{1 << 62},4]"), b"", "takes"),
    "no source": (binary("{}"), b"", "neither data nor binary_data_size"),
    "two sources": (binary('{"binary_data_size":8}', extra=',"data":[1,2]'), bytes(8), "both data and"),
    "region without a size": (binary('{"shared_memory_region":"r"}'), b"", "without shared_memory_byte_size"),
    "region and section": (
        binary('{"binary_data_size":8,"shared_memory_region":"r","shared_memory_byte_size":8}'),
        bytes(8),
        "both binary_data_size and shared_memory_region",
    ),
    "region and data": (
        binary('{"shared_memory_region":"r","shared_memory_byte_size":8}', extra=',"data":[1,2]'),
        b"",
        "both data and shared_memory_region",
    ),
    "region's size against shape": (
        binary('{"shared_memory_region":"r","shared_memory_byte_size":12}'),
        b"",
        r"'x': shape \[2\] .* takes 8 bytes, shared_memory_byte_size in region 'r' is 12",
    ),
    "a place before its region": (
        binary('{"shared_memory_region":"r","shared_memory_byte_size":8,"shared_memory_offset":-1}'),
        b"",
        ">= 0",
    ),
    "region by number": (binary('{"shared_memory_region":7,"shared_memory_byte_size":8}'), b"", "Expected `str"),
}


@pytest.mark.parametrize("case", BINARY_REFUSALS)
def test_binary_is_refused_with_a_reason(case: str) -> None:
    """Sizes that lie are named, with what was expected."""
    header, sections, reason = BINARY_REFUSALS[case]
    with pytest.raises(ProtocolError, match=reason):
        decode_request(header + sections, len(header))


BYTES_REFUSALS = {
    "count": (b"\x00" * 4, "2", "cannot hold 2"),
    "element beyond the end": (b"\xff\xff\xff\xff", "1", "claims 4294967295 bytes"),
    "no length": (b"\x02\x00\x00\x00abc\x00", "2", "element 1 of 2 has no length"),
    "left over": (b"\x01\x00\x00\x00ab", "1", "1 bytes are left"),
    "terabytes": (b"\x00" * 4, str(1 << 40), "cannot hold"),
}


@pytest.mark.parametrize("case", BYTES_REFUSALS)
def test_bytes_elements_must_fill_their_section(case: str) -> None:
    """Every length is compared with what is left, and the section ends with the last element."""
    raw, count, reason = BYTES_REFUSALS[case]
    header = (
        f'{{"inputs":[{{"name":"x","shape":[{count}],"datatype":"BYTES",'
        f'"parameters":{{"binary_data_size":{len(raw)}}}}}]}}'
    ).encode()
    with pytest.raises(ProtocolError, match=reason):
        decode_request(header + raw, len(header))


def test_duplicate_inputs_are_refused() -> None:
    """One name, one tensor."""
    tensor = '{"name":"x","shape":[1],"datatype":"INT8","data":[1]}'
    with pytest.raises(ProtocolError, match="'x' is given twice"):
        decode_request(f'{{"inputs":[{tensor},{tensor}]}}'.encode())


def test_the_last_of_duplicate_keys_counts() -> None:
    """As most JSON parsers have it; never both."""
    body = b'{"inputs":[],"inputs":[{"name":"x","shape":[9],"shape":[1],"datatype":"INT8","data":[1]}]}'
    assert decode_request(body).inputs["x"].tolist() == [1]


@pytest.mark.parametrize("length", [-1, 0, 15])
def test_header_length_must_lie_within_the_body(length: int) -> None:
    """Anything but 1 .. body length is refused."""
    with pytest.raises(ProtocolError):
        decode_request(b'{"inputs":[]} ', length)


@pytest.mark.parametrize("text", ["57x", "1.5", "-1", "+1", " 1", "0x10", "1e2", "", "٣", "9" * 30])
def test_header_length_text_must_be_plain_digits(text: str) -> None:
    """No sign, space, fraction, exponent or foreign digit."""
    with pytest.raises(ProtocolError, match="plain decimal number"):
        parse_header_length(text)


def test_header_length_text_is_read() -> None:
    """Digits are a length, no header is none."""
    assert parse_header_length("144") == 144
    assert parse_header_length(None) is None


def test_limits_hold() -> None:
    """More JSON or more tensors than the limits say is refused before it is decoded or read."""
    body = b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}],"outputs":[{"name":"a"},{"name":"b"}]}'
    with pytest.raises(ProtocolError, match="at most 20 are taken"):
        decode_request(body, limits=Limits(max_json_bytes=20))
    with pytest.raises(ProtocolError, match="at most 1 inputs"):
        decode_request(body, limits=Limits(max_tensors=1))


def test_an_unterminated_string_beside_nan_costs_linear_time() -> None:
    """The search for bare NaN may not be led astray by a megabyte of escapes (the test's timeout is the bound)."""
    with pytest.raises(ProtocolError):
        decode_request(b'{"inputs":[NaN],"id":"' + b'\\"' * 1_000_000)


def test_outputs_without_a_json_form_are_refused() -> None:
    """FP16 and text that is not UTF-8 ask for binary; unknown outputs are named."""
    with pytest.raises(ProtocolError, match="use binary"):
        encode_response(Request(), "m", "1", {"y": np.zeros(1, np.float16)})
    with pytest.raises(ProtocolError, match="not UTF-8"):
        encode_response(Request(), "m", "1", {"y": np.array([b"\xff"], object)})
    with pytest.raises(ProtocolError, match="no output 'q', the model has y"):
        encode_response(Request(outputs=(OutputRequest("q"),)), "m", "1", {"y": np.zeros(1)})


def test_arrays_that_cannot_be_sent_are_refused() -> None:
    """Dates, complex numbers and arbitrary objects have no datatype."""
    for array in (np.zeros(1, "M8[s]"), np.zeros(1, np.complex64)):
        with pytest.raises(ProtocolError, match="no datatype"):
            datatype_of(array.dtype)
    with pytest.raises(ProtocolError, match="holds str or bytes"):
        as_tensor(np.array([object()]))
