"""Inference over REST: every form of tensors, versions, classification, encodings, parameters."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.agent.rest.serving import ROW, Serving, infer_bytes, infer_parts, outputs, request
from tests.onnx_models import mlp_reference

RIGHT = mlp_reference(ROW)


def json_body(array: np.ndarray, **more: object) -> dict[str, object]:
    tensor = {"name": "x", "shape": list(array.shape), "datatype": "FP32", "data": array.tolist()}
    return {"inputs": [tensor], **more}


def test_binary_in_and_out(served: Serving) -> None:
    """Raw tensors go in and come out, with the header length told and the version a string."""
    reply = served.ask(infer_bytes("mlp", ROW, id="7"))
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/octet-stream"
    np.testing.assert_allclose(outputs(reply)["probabilities"], RIGHT, rtol=1e-4)
    head = json.loads(reply.body[: int(reply.headers["inference-header-content-length"])])
    assert (head["id"], head["model_name"], head["model_version"]) == ("7", "mlp", "1")


def test_json_in_and_out(served: Serving) -> None:
    """JSON answers are flat, carry no parameters and no header length."""
    reply = served.post("/v2/models/mlp/infer", json_body(ROW))
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in reply.headers
    assert "parameters" not in reply.json()["outputs"][0]
    np.testing.assert_allclose(outputs(reply)["probabilities"], RIGHT, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 400])
def test_mixed_forms_and_large_bodies(served: Serving, rows: int) -> None:
    """Outputs come in the order and the form asked; a large body goes the long way and gives the same."""
    array = np.random.default_rng(rows).normal(size=(1, 300 * rows)).astype(np.float32)
    wanted = [
        {"name": "mean", "parameters": {"binary_data": False}},
        {"name": "y", "parameters": {"binary_data": True}},
    ]
    reply = served.ask(infer_bytes("wide", array, outputs=wanted))
    assert reply.status == 200, reply.body
    found = outputs(reply)
    assert list(found) == ["mean", "y"]
    np.testing.assert_array_equal(found["y"], array + np.float32(1))
    np.testing.assert_allclose(found["mean"], array.mean(keepdims=True), atol=1e-3)


def test_long_json_answers(served: Serving) -> None:
    """An answer of many JSON numbers is whole."""
    array = np.arange(40_000, dtype=np.float32).reshape(1, -1)
    body, headers = infer_parts(array, outputs=[{"name": "y"}])
    reply = served.post("/v2/models/wide/infer", body, headers)
    np.testing.assert_array_equal(outputs(reply)["y"], array + 1)


def test_strings(served: Serving) -> None:
    """BYTES go through as JSON strings."""
    tensor = {"name": "x", "shape": [2, 1], "datatype": "BYTES", "data": ["Grüße", ""]}
    reply = served.post("/v2/models/strings/infer", {"inputs": [tensor]})
    assert reply.json()["outputs"][0]["data"] == ["Grüße", ""]


def test_versions(served: Serving) -> None:
    """The path's version answers; without one the highest does, and says so."""
    for path, features, version in (("versioned", 16, "2"), ("versioned/versions/1", 8, "1")):
        reply = served.post(f"/v2/models/{path}/infer", json_body(np.ones((1, features), np.float32)))
        assert (reply.status, reply.json()["model_version"]) == (200, version)
    assert served.post("/v2/models/versioned/versions/9/infer", json_body(ROW)).status == 404
    assert "version" in served.post("/v2/models/versioned/versions/1x/infer", json_body(ROW)).error


def test_classification_uses_labels(served: Serving) -> None:
    """The best classes come as value, index and label."""
    wanted = [{"name": "probabilities", "parameters": {"classification": 2}}]
    reply = served.post("/v2/models/labelled/infer", json_body(np.ones((2, 8), np.float32), outputs=wanted))
    output = reply.json()["outputs"][0]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    right = mlp_reference(np.ones((1, 8), np.float32), classes=3)[0]
    _, index, label = output["data"][0].split(":")
    assert (int(index), label) == (right.argmax(), ("cat", "dog", "fox")[right.argmax()])


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
@pytest.mark.parametrize("width", [64, 60_000])
def test_encodings_both_ways(served: Serving, encoding: str, pack: object, width: int) -> None:
    """Compressed bodies are read, and answers are compressed as asked, small and large."""
    array = np.arange(width, dtype=np.float32).reshape(1, -1)
    body, headers = infer_parts(array)
    assert callable(pack)
    sent = {**headers, "Content-Encoding": encoding, "Accept-Encoding": f"br, {encoding};q=0.9, identity;q=0.1"}
    reply = served.post("/v2/models/wide/infer", pack(body), sent)
    assert (reply.status, reply.headers["content-encoding"]) == (200, encoding)
    reply.body = gzip.decompress(reply.body) if encoding == "gzip" else zlib.decompress(reply.body)
    np.testing.assert_array_equal(outputs(reply)["y"], array + 1)


def test_only_inferences_are_compressed(served: Serving) -> None:
    """Metadata and refusals stay plain, and br is never spoken."""
    accept = {"Accept-Encoding": "gzip, deflate, br"}
    assert "content-encoding" not in served.get("/v2/models/mlp", accept).headers
    assert "content-encoding" not in served.post("/v2/models/mlp/infer", b"{", accept).headers
    reply = served.ask(infer_bytes("mlp", ROW, {"Accept-Encoding": "br"}))
    assert "content-encoding" not in reply.headers


def test_parameters_are_taken_or_refused(served: Serving) -> None:
    """No sequence, priorities and what has no meaning are taken; sequences and reserved names are refused."""
    free = {"sequence_id": 0, "sequence_start": False, "priority": 3, "mine": "x", "timeout": 60_000_000}
    assert served.post("/v2/models/mlp/infer", json_body(ROW, parameters=free)).status == 200
    reply = served.post("/v2/models/mlp/infer", json_body(ROW, parameters={"sequence_id": 5}))
    assert (reply.status, "keep no state" in reply.error) == (400, True)
    reply = served.post("/v2/models/mlp/infer", json_body(ROW, parameters={"triton_x": 1}))
    assert (reply.status, "triton_x" in reply.error) == (400, True)


def test_the_configured_deadline(serve: Callable[..., Serving], models: Path) -> None:
    """server.request_timeout_s bounds requests that say nothing, and those that ask for more."""
    serving = serve(models, request_timeout_s=0.001)
    for parameters in ({}, {"timeout": 60_000_000}):
        reply = serving.ask(infer_bytes("slow", np.ones((1, 512), np.float32), parameters=parameters))
        assert (reply.status, "deadline" in reply.error) == (504, True)


@pytest.mark.parametrize("is_header", [True, False])
def test_deadlines(served: Serving, is_header: bool) -> None:
    """A deadline in a header or a parameter that cannot be met is a 504."""
    array = np.ones((1, 512), np.float32)
    if is_header:
        data = infer_bytes("slow", array, {"X-Request-Timeout-Ms": "1"})
    else:
        data = infer_bytes("slow", array, parameters={"timeout": 1})
    reply = served.ask(data)
    assert (reply.status, "deadline" in reply.error) == (504, True)


def test_a_bad_timeout_header_is_refused(served: Serving) -> None:
    """The header takes plain milliseconds only."""
    assert served.ask(infer_bytes("mlp", ROW, {"X-Request-Timeout-Ms": "1.5"})).status == 400


def test_request_ids(served: Serving) -> None:
    """A caller's id is told again; without one, or with one unfit to be told, there is ours."""
    assert served.ask(infer_bytes("mlp", ROW, {"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
    own = {served.ask(infer_bytes("mlp", ROW, h)).headers["x-request-id"] for h in ({}, {"X-Request-Id": "x" * 999})}
    assert len(own) == 2
    assert all(0 < len(each) < 64 for each in own)


def test_statistics_add_up(served: Serving) -> None:
    """Counters are visible when the answer is, count rows, runs and requests, and agree with each other."""
    before = served.get("/v2/models/wide/stats").json()["model_stats"][0]
    for rows in (1, 3):
        assert served.ask(infer_bytes("wide", np.ones((rows, 5), np.float32))).status == 200
    after = served.get("/v2/models/wide/versions/1/stats").json()["model_stats"][0]
    sums = after["inference_stats"]
    assert after["inference_count"] - before["inference_count"] == 4
    assert after["execution_count"] - before["execution_count"] == 2
    assert sums["success"]["count"] == sums["queue"]["count"] == sums["compute_infer"]["count"]
    assert sum(b["compute_infer"]["count"] for b in after["batch_stats"]) == after["execution_count"]
    rows_in_all = sum(b["batch_size"] * b["compute_infer"]["count"] for b in after["batch_stats"])
    assert rows_in_all == after["inference_count"]


def test_a_fault_of_the_engine_is_a_500(served: Serving) -> None:
    """The engine's words come back for the request at fault; the next one is served."""

    def ask(value: int) -> int:
        tensor = {"name": "index", "shape": [1, 1], "datatype": "INT64", "data": [value]}
        return served.post("/v2/models/faulting/infer", {"inputs": [tensor]}).status

    assert [ask(1), ask(10_000), ask(2)] == [200, 500, 200]


def test_escaped_names(served: Serving) -> None:
    """Clients percent-quote names."""
    body, headers = infer_parts(ROW)
    assert served.ask(request("POST", "/v2/models/%6Dlp/infer?x=1", body, headers)).status == 200
