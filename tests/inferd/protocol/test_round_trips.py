"""Whatever is written is read back the same, for every datatype, in both forms and both directions."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inferd.protocol import (
    DATATYPES,
    as_tensor,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)  # fmt: skip
from inferd.protocol.datatypes import Array
from inferd.protocol.jsondata import _decoder
from inferd.protocol.requests import _known_header

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
NUMERIC = sorted(set(DATATYPES) - {"BF16", "BYTES"})
JSON_FORMS = sorted(set(DATATYPES) - {"BF16", "FP16"})
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def tensors(draw: st.DrawFn, datatypes: list[str]) -> Array:
    """An array of one of the datatypes, of any rank up to 4 and any side from 0."""
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(SHAPES)
    if datatype == "BYTES":
        count = int(np.prod(shape))
        array = np.empty(count, object)
        array[:] = draw(st.lists(TEXT.map(str.encode), min_size=count, max_size=count))
        return array.reshape(shape)
    if datatype == "BF16":
        return draw(hnp.arrays(np.uint16, shape)).view(DATATYPES["BF16"])
    return draw(hnp.arrays(DATATYPES[datatype], shape))


def assert_same(left: Array, right: Array, *, bits: bool = True) -> None:
    """Same dtype, shape and bits (or values, where NaN payloads cannot survive)."""
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    if left.dtype == object or not bits:
        np.testing.assert_array_equal(left, right)
    else:
        assert left.tobytes() == right.tobytes()


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(TEXT, tensors(sorted(DATATYPES)), min_size=1, max_size=3), TEXT)
def test_binary_round_trip(arrays: dict[str, Array], name: str) -> None:
    """Requests and responses over binary sections keep every bit, every name and the order."""
    length, buffers = encode_request(arrays, id=name)
    request = decode_request(b"".join(buffers), length)
    assert (request.id, list(request.inputs)) == (name, list(arrays))
    assert request.binary_default
    length, buffers = encode_response(request, name, "1", request.inputs)
    response = decode_response(b"".join(buffers), length)
    assert (response.model_name, response.id, list(response.outputs)) == (name, name, list(arrays))
    for key, array in arrays.items():
        assert_same(response.outputs[key], array)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(TEXT, tensors(JSON_FORMS), min_size=1, max_size=3))
def test_json_round_trip(arrays: dict[str, Array]) -> None:
    """Requests and responses as JSON keep every value, NaN and the infinities too."""
    length, buffers = encode_request(arrays, binary=False)
    assert length is None
    request = decode_request(b"".join(buffers))
    length, buffers = encode_response(request, "m", "1", request.inputs)
    assert length is None
    response = decode_response(b"".join(buffers))
    for key, array in arrays.items():
        assert_same(response.outputs[key], array, bits=False)


@settings(max_examples=100, deadline=None)
@given(tensors(["BOOL", "INT8", "UINT64", "FP64"]))
def test_nested_data_is_read_as_flat_data_is(array: Array) -> None:
    """Clients may send either; a scalar only flat."""
    flat = encode_request({"x": array}, binary=False)[1][0]
    spelled = _json(array.tolist() if array.ndim else [array.item()])
    start = bytes(flat).index(b'"data":') + len(b'"data":')
    nested = bytes(flat)[:start] + spelled + b"}]}"
    assert_same(decode_request(nested).inputs["x"], array, bits=False)


def _json(value: Any) -> bytes:
    import json

    return json.dumps(value).encode()


@pytest.mark.parametrize("value", ["text", ["a", "b"], [b"a"], np.array(["ab", "c"]), np.array([b"x"])])
def test_text_becomes_bytes_tensors(value: Any) -> None:
    """str, bytes and numpy's text dtypes all travel as BYTES."""
    array = as_tensor(value)
    length, buffers = encode_request({"x": array})
    read = decode_request(b"".join(buffers), length).inputs["x"]
    assert read.dtype == object
    assert [element.decode() for element in read.ravel()] == [
        element if isinstance(element, str) else element.decode() for element in np.ravel(np.asarray(value)).tolist()
    ]


def test_foreign_byte_order_and_strides_are_straightened() -> None:
    """Big-endian and transposed arrays arrive with the same values."""
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    length, buffers = encode_request({"x": array})
    read = decode_request(b"".join(buffers), length).inputs["x"]
    assert read.dtype == np.dtype("<f4")
    assert read.tolist() == array.tolist()


def test_decoders_are_bounded() -> None:
    """One per datatype, depth and dialect: callers cannot grow the cache without end."""
    for rank in range(1, 33):
        nested: Any = 1
        for _ in range(rank):
            nested = [nested]
        body = b'{"inputs":[{"name":"x","datatype":"INT8","shape":%b,"data":%b}]}' % (_json([1] * rank), _json(nested))
        assert decode_request(body).inputs["x"].ndim == rank
    assert _decoder.cache_info().currsize <= 12 * 32 * 2


@given(st.none() | TEXT, st.sampled_from(["", " "]), st.none() | TEXT)
def test_an_id_is_read_wherever_it_stands(first: str | None, space: str, last: str | None) -> None:
    """What is remembered of a header never gives a request another one's id."""
    tensor = '{"name":"x","shape":[1],"datatype":"UINT8","parameters":{"binary_data_size":1}}'
    fields = [f'"inputs":{space}[{tensor}]']
    if first is not None:
        fields.insert(0, f'"id":{space}{json.dumps(first, ensure_ascii=False)}')
    if last is not None:
        fields.append(f'"id":{space}{json.dumps(last)}')
    header = ("{" + f",{space}".join(fields) + "}").encode()
    request = decode_request(header + b"\x07", len(header))
    assert request.id == (last if last is not None else first or "")
    assert request.inputs["x"].tolist() == [7]


def test_headers_that_differ_in_their_ids_are_read_once() -> None:
    """Callers who number their requests gain from what is remembered, too."""
    array = np.zeros(1, np.uint8)
    before = _known_header.cache_info()
    for number in range(10, 30):
        length, parts = encode_request({"only here": array}, binary=True, id=str(number))
        assert decode_request(b"".join(parts), length).id == str(number)
    after = _known_header.cache_info()
    assert after.misses - before.misses == 1
    assert after.maxsize is not None
