"""The classification extension."""

from __future__ import annotations

import numpy as np
import pytest

from inferd.protocol import ProtocolError, Request, classify, decode_response, encode_response
from inferd.protocol.requests import OutputRequest


def test_best_classes_come_first_with_labels() -> None:
    """`value:index:label`, six decimals, and no label where the file has none."""
    scores = np.array([[0.5, 10.0, -1.0], [3.0, 2.0, 2.5]], np.float32)
    assert classify(scores, 2, ["a", "b"]).tolist() == [
        [b"10.000000:1:b", b"0.500000:0:a"],
        [b"3.000000:0:a", b"2.500000:2"],
    ]


def test_without_rows_the_result_is_flat_and_k_is_capped() -> None:
    """`[min(k, n)]` for a model without a batch dimension."""
    assert classify(np.array([1, 3, 2]), 9, batched=False).tolist() == [b"3.000000:1", b"2.000000:2", b"1.000000:0"]


def test_equal_scores_keep_index_order_and_nan_is_last() -> None:
    """The order is the same every time."""
    scores = np.array([[1.0, np.nan, 1.0, 2.0]])
    assert classify(scores, 4).tolist() == [[b"2.000000:3", b"1.000000:0", b"1.000000:2", b"nan:1"]]


def test_empty_tensors_have_no_classes() -> None:
    """Zero rows and zero classes stay what they are."""
    assert classify(np.zeros((0, 3), np.float32), 2).shape == (0, 0)
    assert classify(np.zeros((2, 0), np.float32), 2).shape == (2, 0)


@pytest.mark.parametrize("dtype", [np.bool_, np.float16, object])
def test_datatypes_without_an_order_are_refused(dtype: type) -> None:
    """The message names the output."""
    with pytest.raises(ProtocolError, match="'y'"):
        classify(np.zeros((1, 2), dtype), 1, name="y")


def test_a_response_classifies_the_outputs_that_ask() -> None:
    """As BYTES, in JSON or binary, with the model's labels."""
    request = Request(outputs=(OutputRequest("y", True, 1), OutputRequest("y2")))
    outputs = {"y": np.array([[1.0, 2.0]]), "y2": np.array([1.0])}
    length, buffers = encode_response(request, "m", "1", outputs, labels={"y": ("cat", "dog")})
    response = decode_response(b"".join(buffers), length)
    assert response.outputs["y"].tolist() == [[b"2.000000:1:dog"]]
    assert response.outputs["y2"].tolist() == [1.0]
