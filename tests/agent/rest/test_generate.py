"""The generate extension against a running front end."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests import onnx_models
from tests.agent.rest.serving import ROW, Serving

EXPECTED = onnx_models.mlp_reference(ROW)[0]


@pytest.mark.parametrize("model", ["mlp", "mlp/versions/1"])
def test_values_in_and_values_out(served: Serving, model: str) -> None:
    """The same numbers as by tensors, as one object or as a stream of one event."""
    asked = {"x": ROW[0].tolist(), "id": "a", "priority": 1}
    reply = served.post(f"/v2/models/{model}/generate", asked)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    found = reply.json()
    np.testing.assert_allclose(found.pop("probabilities"), EXPECTED, atol=0.02)
    assert found == {"id": "a", "model_name": "mlp", "model_version": "1"}
    streamed = served.post(f"/v2/models/{model}/generate_stream", asked)
    assert (streamed.status, streamed.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert streamed.body.startswith(b"data: {")
    assert streamed.body.endswith(b"}\n\n")
    assert json.loads(streamed.body[6:]) == reply.json()


@pytest.mark.parametrize("path", ["generate", "generate_stream"])
def test_refusals(served: Serving, path: str) -> None:
    """One form of refusal by both ways, with the right status."""
    for model, body, status in (
        ("nobody", {"x": 1}, 404),
        ("mlp/versions/9", {"x": 1}, 404),
        ("mlp", {"x": [1, 2]}, 400),
        ("mlp", {}, 400),
        ("mlp", {"x": ROW[0].tolist(), "timeout": 1}, 504),
        ("faulting", {"index": 99}, 500),
    ):
        reply = served.post(f"/v2/models/{model}/{path}", body)
        assert (reply.status, bool(reply.error)) == (status, True), model
