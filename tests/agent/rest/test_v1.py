"""KServe V1 and TensorFlow Serving's paths against a running front end."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests import onnx_models
from tests.agent.rest.serving import ROW, Serving, request

EXPECTED = onnx_models.mlp_reference(ROW)


@pytest.mark.parametrize("path", ["/v1/models/mlp:predict", "/v1/models/mlp/versions/1:predict"])
def test_predictions(served: Serving, path: str) -> None:
    """Rows answer rows, columns columns, by the same model as ever."""
    rows = [ROW[0].tolist(), ROW[0].tolist()]
    reply = served.post(path, {"instances": rows})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    np.testing.assert_allclose(reply.json()["predictions"], np.repeat(EXPECTED, 2, 0), atol=0.02)
    columns = served.post(path, {"inputs": {"x": rows}}).json()["outputs"]
    np.testing.assert_allclose(columns, np.repeat(EXPECTED, 2, 0), atol=0.02)


def test_long_predictions_are_the_same(served: Serving) -> None:
    """What is long enough to leave the event loop comes out as well."""
    wide = np.arange(40_000, dtype=np.float32).reshape(4, -1)
    found = served.post("/v1/models/wide:predict", {"instances": wide.tolist()}).json()["predictions"]
    np.testing.assert_array_equal([row["y"] for row in found], wide + 1)


def test_text(served: Serving) -> None:
    """Strings and base64 go in, and come out as they are."""
    found = served.post("/v1/models/strings:predict", {"instances": [["é"], [{"b64": "eA=="}]]})
    assert found.json() == {"predictions": [["é"], ["x"]]}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/models/nobody:predict", {"instances": [1]}, 404),
        ("/v1/models/mlp/versions/9:predict", {"instances": [1]}, 404),
        ("/v1/models/mlp/versions/x:predict", {"instances": [1]}, 400),
        ("/v1/models/mlp:predict", {"instances": [1]}, 400),
        ("/v1/models/mlp:predict", b"{", 400),
        ("/v1/models/mlp:classify", {"examples": []}, 404),
        ("/v1/models/mlp/versions/1:explain", {"instances": [1]}, 404),
        ("/v1/models/:predict", {"instances": [1]}, 404),
        ("/v1/models/faulting:predict", {"instances": [[99]]}, 500),
    ],
)
def test_refusals(served: Serving, path: str, body: object, status: int) -> None:
    """One form of refusal, with the right status."""
    reply = served.post(path, body)
    assert (reply.status, bool(reply.error)) == (status, True)


def test_status_speaks_to_all_kinds_of_client(served: Serving) -> None:
    """KServe's keys, OpenAI's, and TensorFlow Serving's, newest version first; one version when one is named."""
    found = served.get("/v1/models/versioned").json()
    assert (found["name"], found["ready"]) == ("versioned", True)
    assert (found["id"], found["object"]) == ("versioned", "model")
    fine = {"error_code": "OK", "error_message": ""}
    assert found["model_version_status"] == [
        {"version": "2", "state": "AVAILABLE", "status": fine},
        {"version": "1", "state": "AVAILABLE", "status": fine},
    ]
    [one] = served.get("/v1/models/versioned/versions/1").json()["model_version_status"]
    assert one["version"] == "1"
    assert served.get("/v1/models/nobody").status == 404


def test_metadata(served: Serving) -> None:
    """The signature that TensorFlow Serving's clients read."""
    found = served.get("/v1/models/strings/metadata").json()
    assert found["model_spec"] == {"name": "strings", "signature_name": "", "version": "1"}
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"] == {
        "dtype": "DT_STRING",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False},
        "name": "x",
    }


def test_a_token_needs_its_scopes(served: Serving) -> None:
    """Over TCP nobody predicts without a token, and one that may only read may not."""
    body = json.dumps({"instances": [ROW[0].tolist()]}).encode()
    assert served.ask(request("POST", "/v1/models/mlp:predict", body), tcp=True).status == 401
    assert served.ask(request("GET", "/v1/models/mlp"), tcp=True).status == 401


def test_a_timeout_counts_here_too(served: Serving) -> None:
    """The header of every inference."""
    columns = {"instances": np.zeros((1, 512)).tolist()}
    reply = served.post("/v1/models/slow:predict", columns, {"X-Request-Timeout-Ms": "1"})
    assert reply.status == 504


def test_version_0_is_none_in_particular(served: Serving) -> None:
    """As OpenVINO Model Server's clients name it, who name no other unless told to."""
    for path in ("/v1/models/versioned", "/v1/models/versioned/metadata"):
        assert served.get(path.replace("versioned", "versioned/versions/0")).json() == served.get(path).json()
    asked = {"inputs": {"x": ROW.tolist()}}
    found = served.post("/v1/models/mlp/versions/0:predict", asked).json()
    assert found == served.post("/v1/models/mlp:predict", asked).json()
