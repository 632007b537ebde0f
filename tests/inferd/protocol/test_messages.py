"""The JSON bodies beside inference."""

from __future__ import annotations

import json

import pytest

from inferd.protocol import ProtocolError, config_type, messages


def test_server_metadata_has_its_fields() -> None:
    """Exactly the three fields that the protocol has."""
    body = messages.encode(messages.ServerMetadata("inferd", "0.1.0", ("binary_tensor_data",)))
    assert body == b'{"name":"inferd","version":"0.1.0","extensions":["binary_tensor_data"]}'


def test_model_metadata_has_string_versions_and_free_dimensions() -> None:
    """Clients reject integer versions."""
    tensor = messages.TensorMetadata("x", "FP32", (-1, 64))
    body = messages.encode(messages.ModelMetadata("m", ("1", "3"), "onnxruntime_onnx", (tensor,), (tensor,)))
    assert json.loads(body)["versions"] == ["1", "3"]
    assert json.loads(body)["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]


def test_model_config_prints_defaults_and_omits_absent_batching() -> None:
    """`dynamic_batching` is there only when batching is on: its presence is what clients look at."""
    tensor = messages.ConfigTensor("y", config_type("BYTES"), (64,), "labels.txt")
    config = messages.ModelConfig(
        name="m", platform="onnxruntime_onnx", backend="onnxruntime", version_policy={"latest": {"num_versions": 1}},
        max_batch_size=0, input=(messages.ConfigInput("x", config_type("BYTES"), (64,)),), output=(tensor,),
    )  # fmt: skip
    printed = json.loads(messages.encode(config))
    assert printed["max_batch_size"] == 0
    both = {"data_type": "TYPE_STRING", "dims": [64], "is_shape_tensor": False}
    assert printed["input"] == [
        {"name": "x", "label_filename": "", "allow_ragged_batch": False, "optional": False, **both}
    ]
    assert printed["output"] == [{"name": "y", "label_filename": "labels.txt", **both}]
    assert printed["model_transaction_policy"] == {"decoupled": False}
    assert "dynamic_batching" not in printed


def test_statistics_always_have_every_counter() -> None:
    """perf_analyzer does not check whether they are there."""
    stats = messages.ModelStatistics("m", "1", 0, 0, 0, messages.InferStatistics())
    printed = json.loads(messages.encode(messages.StatisticsBody((stats,))))["model_stats"][0]
    for counter in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit",
                    "cache_miss"):  # fmt: skip
        assert printed["inference_stats"][counter] == {"count": 0, "ns": 0}
    assert printed["response_stats"] == {}
    assert printed["batch_stats"] == printed["memory_usage"] == []


def test_index_leaves_out_what_is_not_known() -> None:
    """A plain list, whose entries need only a name."""
    entries = [messages.IndexEntry("a", "1", "READY"), messages.IndexEntry("b")]
    assert messages.encode(entries) == b'[{"name":"a","version":"1","state":"READY"},{"name":"b"}]'


def test_errors_have_exactly_one_field() -> None:
    """Any other shape confuses the clients."""
    assert messages.encode(messages.ErrorBody('a "b"')) == b'{"error":"a \\"b\\""}'


def test_control_bodies_may_be_empty() -> None:
    """Nothing, `{}` and the full form are all told apart from nonsense."""
    assert messages.decode_optional(messages.INDEX_REQUEST, b"", "index").ready is False
    assert messages.decode_optional(messages.INDEX_REQUEST, b'{"ready":true}', "index").ready is True
    assert messages.decode_optional(messages.LOAD_REQUEST, b"{}", "load").parameters == {}
    unload = messages.decode_optional(
        messages.UNLOAD_REQUEST, b'{"parameters":{"unload_dependents":true}}', "unload"
    )  # fmt: skip
    assert unload.parameters.unload_dependents is True
    with pytest.raises(ProtocolError, match="index: Expected `bool`"):
        messages.decode_optional(messages.INDEX_REQUEST, b'{"ready":1}', "index")
