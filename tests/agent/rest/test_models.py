"""What models are: metadata, configuration, readiness, index, load and unload, details, metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.agent.rest.serving import ROW, Serving, infer_bytes


def test_server_metadata(served: Serving) -> None:
    """Name, version, and only the extensions that work."""
    found = served.get("/v2").json()
    assert found["name"] == "inferd"
    assert {"binary_tensor_data", "schedule_policy"} < set(found["extensions"])
    assert "trace" not in found["extensions"]


def test_model_metadata(served: Serving) -> None:
    """Versions are strings, the batch dimension is -1; with a version only that one is listed."""
    found = served.get("/v2/models/versioned").json()
    assert found["versions"] == ["1", "2"]
    assert found["platform"] == "onnxruntime_onnx"
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}]
    assert served.get("/v2/models/versioned/versions/1").json()["versions"] == ["1"]


def test_model_config(served: Serving) -> None:
    """Dims leave the batch out, and the batch is told."""
    found = served.get("/v2/models/mlp/config").json()
    assert found["max_batch_size"] > 0
    assert found["input"][0]["data_type"] == "TYPE_FP32"
    assert found["input"][0]["dims"] == [64]
    assert served.get("/v2/models/strings/config").json()["output"][0]["data_type"] == "TYPE_STRING"


def test_readiness(served: Serving) -> None:
    """The server and its models say that they are ready; unknown ones are 404."""
    assert served.get("/v2/health/ready").json() == {"ready": True}
    assert served.get("/v2/models/mlp/ready").status == 200
    assert served.get("/v2/models/nobody/ready").status == 404
    assert served.get("/v2/models/mlp/versions/7/ready").status == 404


def test_unload_and_load(served: Serving) -> None:
    """Unloaded models are listed with the reason and refuse requests; loading brings them back."""
    assert served.post("/v2/repository/models/mlp/unload").status == 200
    index = {entry["name"]: entry for entry in served.post("/v2/repository/index", {}).json()}
    assert index["mlp"]["state"] == "UNAVAILABLE"
    assert index["mlp"]["version"] == "1"
    ready = served.post("/v2/repository/any/index", {"ready": True}).json()
    assert "mlp" not in {entry["name"] for entry in ready}
    reply = served.ask(infer_bytes("mlp", ROW))
    assert reply.status in (404, 503)
    assert served.get("/v2/models/mlp/ready").status == 503
    assert served.post("/v2/repository/models/mlp/load", {}).status == 200
    assert served.ask(infer_bytes("mlp", ROW)).status == 200
    assert served.post("/v2/repository/models/nobody/unload").status == 200


def test_details(served: Serving) -> None:
    """Beyond the protocol: state, plan and its reasons, of one model or of all."""
    (found,) = served.get("/inferd/v1/models/mlp").json()
    assert found["state"] == "READY"
    assert found["plan"]["reason"]
    assert found["inputs"][0]["datatype"] == "FP32"
    assert {d["name"] for d in served.get("/inferd/v1/models").json()} > {"mlp", "wide"}
    assert served.get("/inferd/v1/models/nobody").status == 404


def test_metrics(served: Serving) -> None:
    """The page parses, counts what was asked, and its histogram adds up."""
    served.ask(infer_bytes("mlp", ROW))
    served.get("/nowhere")
    reply = served.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    samples = {}
    for family in text_string_to_metric_families(reply.body.decode()):
        assert family.name.startswith("inferd_")
        assert family.documentation
        for sample in family.samples:
            samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    mlp = (("model", "mlp"), ("version", "1"))
    assert samples["inferd_requests_total", (("code", "404"), ("path", "none"))] >= 1
    assert samples["inferd_inferences_total", mlp] == samples["inferd_inference_latency_seconds_count", mlp] >= 1
    assert samples["inferd_model_state", (("model", "mlp"), ("state", "ready"), ("version", "1"))] == 1
    assert samples["inferd_connections_open", ()] >= 1


def test_metrics_tell_a_limited_caller_of_its_models_only(served: Serving) -> None:
    """Figures of models that a token does not cover are left out; the daemon's own are there."""
    token, _ = served.tokens.create("scraper", ("read",), models=("ml*",))
    served.identity.reload()
    reply = served.get("/metrics", {"Authorization": f"Bearer {token}"}, tcp=True)
    families = list(text_string_to_metric_families(reply.body.decode()))
    models = {sample.labels["model"] for family in families for sample in family.samples if "model" in sample.labels}
    assert models == {"mlp"}
    assert "inferd_connections_open" in {family.name for family in families}


def test_an_answer_that_cannot_be_written_counts_as_a_success(served: Serving) -> None:
    """The model ran, whatever its caller wants of the result."""

    def counted() -> tuple[int, int, int]:
        [found] = served.get("/v2/models/strings/stats").json()["model_stats"]
        sums = found["inference_stats"]
        return sums["success"]["count"], sums["fail"]["count"], found["execution_count"]

    tensor = {"name": "x", "shape": [1, 1], "datatype": "BYTES", "data": ["text"]}
    classes = [{"name": "y", "parameters": {"classification": 1}}]
    successes, failures, runs = counted()
    refused = served.post("/v2/models/strings/infer", {"inputs": [tensor], "outputs": classes})
    assert (refused.status, refused.error) == (400, "output 'y': classification needs numbers, it is BYTES")
    assert counted() == (successes + 1, failures, runs + 1)
