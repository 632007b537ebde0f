"""KServe V1 and TensorFlow Serving bodies: rows and columns, both ways."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.protocol import ProtocolError
from inferd.protocol.v1 import Prediction, decode_predict, encode_predict

X = {"x": "FP32"}
TEXT = {"t": "BYTES"}


def decode(body: Any, datatypes: dict[str, str] = X) -> Prediction:
    """What a body asks."""
    return decode_predict(body if isinstance(body, bytes) else json.dumps(body).encode(), datatypes)


@pytest.mark.parametrize(
    ("body", "expected", "rows"),
    [
        ({"instances": [[1, 2], [3, 4.5]]}, [[1, 2], [3, 4.5]], 2),
        ({"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}, [[1, 2], [3, 4]], 2),
        ({"instances": [7], "signature_name": "serving_default"}, [7], 1),
        ({"instances": [{"x": 7}]}, [7], 1),
        ({"inputs": [[1, 2]]}, [[1, 2]], None),
        ({"inputs": {"x": [[1, 2]]}, "anything": "else"}, [[1, 2]], None),
        ({"inputs": 5}, 5, None),
        (b'{"instances": [NaN, -Infinity]}', [np.nan, -np.inf], 2),
        (b'{"instances": [{"x": NaN}]}', [np.nan], 1),
    ],
)
def test_rows_and_columns_are_read(body: Any, expected: Any, rows: int | None) -> None:
    """The shape is the nesting, the datatype the model's."""
    asked = decode(body)
    np.testing.assert_array_equal(asked.inputs["x"], np.array(expected, np.float32))
    assert asked.inputs["x"].dtype == np.float32
    assert asked.rows == rows


@pytest.mark.parametrize(
    "body",
    [
        {"instances": ["é", {"b64": "AP8="}]},
        {"instances": [{"t": "é"}, {"t": {"b64": "AP8="}}]},
        {"inputs": {"t": ["é", {"b64": "AP8="}]}},
    ],
)
def test_bytes_are_text_or_base64(body: Any) -> None:
    """Both may stand side by side."""
    assert decode(body, TEXT).inputs["t"].tolist() == ["é".encode(), b"\x00\xff"]


def test_a_row_of_base64_alone_is_a_value() -> None:
    """An object whose only key is b64 is bytes for a model with one input of bytes."""
    assert decode({"instances": [{"b64": "AP8="}, "x"]}, TEXT).inputs["t"].tolist() == [b"\x00\xff", b"x"]
    assert decode({"inputs": {"b64": "AP8="}}, TEXT).inputs["t"].tolist() == b"\x00\xff"


def test_half_precision_is_numbers_here() -> None:
    """V1 has no binary form, so FP16 and BF16 travel as numbers."""
    for datatype in ("FP16", "BF16"):
        tensor = decode({"instances": [1.5]}, {"x": datatype}).inputs["x"]
        assert tensor.dtype.itemsize == 2
        assert json.loads(encode_predict(Prediction({}, 1), {"y": tensor})) == {"predictions": [1.5]}


@pytest.mark.parametrize(
    ("body", "datatypes", "complaint"),
    [
        ({}, X, "either 'instances'"),
        ({"instances": [1], "inputs": [1]}, X, "either 'instances'"),
        ({"instances": []}, X, "no rows"),
        ({"instances": 3}, X, "no rows"),
        ({"instances": [[1], [1, 2]]}, X, "tensor 'x': data is nested unevenly"),
        ({"instances": [{"y": 1}]}, X, "unknown input 'y'"),
        ({"instances": [{"x": 1}, 2]}, X, "objects and other things"),
        ({"instances": [{"x": 1}, {}]}, X, "row 1 of 'instances'"),
        ({"instances": [1]}, {"a": "FP32", "b": "FP32"}, "has to name them: a, b"),
        ({"instances": [300]}, {"x": "INT8"}, "tensor 'x'"),
        ({"instances": [1e9]}, {"x": "FP16"}, "out of range for FP16"),
        ({"instances": ["x"]}, X, "tensor 'x'"),
        ({"instances": [{"b64": "A"}]}, TEXT, "is not base64"),
        ({"instances": [1], "signature_name": "other"}, X, "no signature 'other'"),
        (b'{"instances": ' + b"[" * 40 + b"]" * 40 + b"}", X, "nested 40 deep"),
        (b'{"instances": ' + b"[" * 90_000, X, "request"),
        (b"", X, "empty"),
    ],
)
def test_malformed_requests_are_told(body: Any, datatypes: dict[str, str], complaint: str) -> None:
    """With the tensor, what was expected and what came."""
    with pytest.raises(ProtocolError, match=complaint):
        decode(body, datatypes)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "t", "b64", "$", "y"]), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(st.sampled_from(["instances", "inputs"]), _JSON, st.sampled_from([X, TEXT, {"x": "INT64", "t": "BYTES"}, {}]))
def test_any_body_is_read_or_refused(key: str, value: Any, datatypes: dict[str, str]) -> None:
    """Nothing but ProtocolError comes out, and what is read has the model's names."""
    try:
        asked = decode({key: value}, datatypes)
    except ProtocolError:
        return
    assert asked.inputs.keys() <= datatypes.keys()


def test_answers_have_the_form_of_the_question() -> None:
    """Rows for rows, columns for columns; objects only where there are several outputs."""
    a, b = np.array([[1, 2], [3, 4]], np.int32), np.array([b"x", b"\xff"], object)
    rows, columns = Prediction({}, 2), Prediction({}, None)
    assert json.loads(encode_predict(rows, {"a": a})) == {"predictions": [[1, 2], [3, 4]]}
    assert json.loads(encode_predict(columns, {"a": a})) == {"outputs": [[1, 2], [3, 4]]}
    assert json.loads(encode_predict(rows, {"a": a, "b": b})) == {
        "predictions": [{"a": [1, 2], "b": "x"}, {"a": [3, 4], "b": {"b64": "/w=="}}]
    }
    assert json.loads(encode_predict(columns, {"a": a, "b_bytes": b[:1]})) == {
        "outputs": {"a": [[1, 2], [3, 4]], "b_bytes": [{"b64": "eA=="}]}
    }
    assert encode_predict(rows, {"a": np.array([np.nan, 1])}) == b'{"predictions":[NaN,1.0]}'


def test_an_answer_without_rows_points_to_columns() -> None:
    """An output that does not go by rows cannot be told in row form."""
    with pytest.raises(ProtocolError, match="ask with 'inputs'"):
        encode_predict(Prediction({}, 2), {"total": np.array(3.0)})
