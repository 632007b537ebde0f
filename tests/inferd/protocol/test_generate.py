"""The generate extension's bodies: shapes that are fitted, parameters, and what cannot be either."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.protocol import ProtocolError, Request
from inferd.protocol.generate import Wanted, decode_generate, encode_generate


def decode(body: Any, *shape: int, datatype: str = "FP32") -> Request:
    """What a body asks of a model with one input `x`."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_generate(data, [Wanted("x", datatype, shape)])


@pytest.mark.parametrize(
    ("value", "shape", "expected"),
    [
        (7, (1,), [7]),
        (7, (), 7),
        (7, (-1, 1), [[7]]),
        ([1, 2, 3, 4], (-1, 2), [[1, 2], [3, 4]]),
        ([1, 2, 3, 4], (-1, -1), [[1, 2, 3, 4]]),
        ([1, 2, 3, 4], (-1, -1, 2), [[[1, 2], [3, 4]]]),
        ([1, 2, 3, 4], (2, 2), [[1, 2], [3, 4]]),
        ([], (-1,), []),
    ],
)
def test_shapes_are_fitted(value: Any, shape: tuple[int, ...], expected: Any) -> None:
    """Fixed dimensions take their part, the innermost free one the rest."""
    np.testing.assert_array_equal(decode({"x": value}, *shape).inputs["x"], np.array(expected, np.float32))


def test_texts_and_specials_are_read() -> None:
    """As V1 reads them."""
    assert decode({"x": ["é", ""]}, -1, datatype="BYTES").inputs["x"].tolist() == ["é".encode(), b""]
    assert np.isnan(decode(b'{"x": NaN}', 1).inputs["x"]).all()


def test_what_is_no_input_is_a_parameter() -> None:
    """Beside those in `parameters`; the id comes back, and those that have a meaning have it."""
    asked = decode({"x": 1, "id": "a", "timeout": 5000, "parameters": {"priority": 2, "other": "b"}, "some": True}, 1)
    assert (asked.id, asked.timeout_us, asked.priority) == ("a", 5000, 2)
    assert asked.parameters == {"timeout": 5000, "priority": 2, "other": "b", "some": True}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        ([], "Expected `object`"),
        ({"x": [1, 2, 3]}, "3 elements do not make up [-1, 2]"),
        ({"x": [[1, 2]]}, "lists in lists"),
        ({"x": ["a", "b"]}, "tensor 'x' data"),
        ({"x": [1, 2], "id": 5}, "id: Expected"),
        ({"x": [1, 2], "z": [1]}, "'z' is no input (they are x)"),
        ({"x": [1, 2], "sequence_id": 5}, "sequences are not supported"),
        ({"x": [1, 2], "parameters": {"triton_x": 5}}, "reserved"),
    ],
)
def test_refusals(body: Any, words: str) -> None:
    """The text names what is wrong."""
    with pytest.raises(ProtocolError) as refusal:
        decode(body, -1, 2)
    assert words in str(refusal.value)


@given(st.binary(max_size=80) | st.recursive(st.integers() | st.text(max_size=3), st.lists).map(lambda x: {"x": x}))
def test_any_body_is_a_request_or_refused(body: Any) -> None:
    """Nothing else comes of it."""
    try:
        found = decode(body, -1, 2)
    except ProtocolError:
        return
    assert found.inputs["x"].shape[1] == 2 if "x" in found.inputs else not found.inputs


def test_answers_are_flat() -> None:
    """One element is a scalar, more are a flat list; NaN is written bare, bytes that are no text as base64."""
    outputs = {
        "one": np.array([[2.5]], np.float32), "more": np.array([[1], [2]]), "half": np.array([1.5], ml_dtypes.bfloat16),
        "odd": np.array([np.nan, 1], np.float32), "text": np.array([["é"]], object), "raw": np.array([b"\xff"], object),
    }  # fmt: skip
    answer = encode_generate(Request(id="a"), "m", "3", outputs)
    assert answer == (
        b'{"id":"a","model_name":"m","model_version":"3","one":2.5,"more":[1,2],"half":1.5,"odd":[NaN,1.0],'
        + '"text":"é","raw":{"b64":"/w=="}}'.encode()
    )
