"""config.pbtxt: what of it becomes settings, what is named as left out, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.errors import InvalidModel
from inferd_runtime.repository.settings import ModelSettings, parse_settings, read_settings
from inferd_runtime.repository.triton import parse_triton, read_triton
from tests.runtime.repository.stage import Stage

WHOLE = """
name: "m"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "image" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, 224 ] } ]
output [ { name: "scores" data_type: TYPE_FP32 dims: [ 1000 ] label_filename: "labels.txt" } ]
version_policy: { specific: { versions: [1, 3] } }
dynamic_batching { preferred_batch_size: [ 2, 4 ] }
instance_group [ { count: 2 kind: KIND_CPU } ]
"""


def parse(text: str) -> tuple[ModelSettings, str]:
    """The settings of a model `m` with this configuration and no other, and the warning."""
    given, warning = parse_triton(text.encode(), "config.pbtxt", "m")
    return parse_settings(b"", "model.toml", given), warning


def test_what_maps_is_followed() -> None:
    """Engine, versions, batches, shapes, labels, instances; nothing is left to warn of."""
    assert parse(WHOLE) == (
        ModelSettings(
            versions=(1, 3), engine="onnxruntime", device="cpu", streams=2, max_batch=8, batch=4,
            labels={"scores": "labels.txt"}, shapes={"image": (3, 224, 224), "scores": (1000,)},
        ),
        "",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", ModelSettings()),
        ('backend: "openvino"', ModelSettings(engine="openvino")),
        ("max_batch_size: 0", ModelSettings(max_batch=0)),
        ('input { name: "x" dims: -1 dims: 4 }', ModelSettings(max_batch=0, shapes={"x": (-1, 4)})),
        ("version_policy { all { } }", ModelSettings(versions="all")),
        ("version_policy { latest { num_versions: 1 } }", ModelSettings()),
        ("version_policy { latest { num_versions: 3 } }", ModelSettings(versions="latest:3")),
        ("dynamic_batching { }", ModelSettings()),
        ("instance_group { kind: KIND_AUTO }", ModelSettings()),
        ("instance_group { count: 1 kind: KIND_CPU }", ModelSettings(device="cpu")),
        ('default_model_filename: "model.onnx"', ModelSettings()),
        ("model_transaction_policy { decoupled: false }", ModelSettings()),
    ],
)
def test_each_thing_by_itself(text: str, settings: ModelSettings) -> None:
    """What is not there leaves the choice to us, and what says nothing is nothing to warn of."""
    assert parse(text) == (settings, "")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('name: "other"', "name 'other'"),
        ('backend: "python"', "backend 'python'"),
        ('default_model_filename: "net.onnx"', "default_model_filename 'net.onnx'"),
        ("sequence_batching { }", "sequence_batching"),
        ('parameters { key: "a" value { string_value: "b" } }', "parameters"),
        ("optimization { graph { level: 1 } }", "optimization"),
        ("model_warmup { name: 'w' }", "model_warmup"),
        ("dynamic_batching { max_queue_delay_microseconds: 100 }", "max_queue_delay_microseconds of dynamic_batching"),
        ("instance_group { kind: KIND_GPU gpus: [ 0 ] }", "instance_group KIND_GPU"),
        ("instance_group { kind: KIND_GPU gpus: [ 0 ] }", "gpus of instance_group"),
        ("model_transaction_policy { decoupled: true }", "model_transaction_policy"),
        ("input { name: 'x' dims: 1 reshape { shape: [] } }", "reshape of input 'x'"),
        ("input { name: 'x' optional: true }", "optional of input 'x'"),
    ],
)
def test_what_does_not_map_is_named(text: str, named: str) -> None:
    """One warning has it, and the model is served all the same."""
    _, warning = parse(text)
    assert warning.startswith("config.pbtxt is followed, but not in this: ")
    assert named in warning


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("max_batchsize: 8", "unknown field 'max_batchsize'; the nearest known field is 'max_batch_size'"),
        ("input { nam: 'x' }", "input: unknown field 'nam'"),
        ("max_batch_size: '8'", "max_batch_size takes a whole number, got '8'"),
        ("max_batch_size: true", "takes a whole number"),
        ("max_batch_size: 1 max_batch_size: 2", "given 2 times"),
        ("max_batch_size: -1", "max_batch = -1"),
        ("platform: onnxruntime_onnx", "platform takes a string"),
        ("version_policy { specific { versions: [0] } }", "versions = "),
        ("version_policy { specific { } }", "versions = "),
        ("version_policy { all { } latest { } }", "only one of"),
        ("version_policy { latest { num_versions: 500 } }", "1 to 99"),
        ("input { dims: 1 }", "a tensor has no name"),
        ("input { name: 'x' data_type: TYPE_F32 }", "data_type 'TYPE_F32' of 'x' is unknown"),
        ("input { name: 'x' dims: -2 }", "shapes = "),
        ("input: 5", "input takes a message"),
    ],
)
def test_slips_are_refused(text: str, complaint: str) -> None:
    """As Triton does, with the place and the nearest right thing."""
    with pytest.raises(InvalidModel, match=r"^config\.pbtxt") as caught:
        parse(text)
    assert complaint in str(caught.value)


_FIELD = st.sampled_from([
    "name", "platform", "input", "output", "version_policy", "dynamic_batching", "instance_group", "max_batch_size",
    "parameters", "latest", "specific", "versions", "dims", "count", "kind",
])  # fmt: skip
_TEXTS = st.recursive(
    st.tuples(_FIELD, st.sampled_from(["1", "-1", "'m'", "KIND_CPU", "[1, 2]", "true", "1.5"])).map(": ".join),
    lambda inner: st.tuples(_FIELD, st.lists(inner, max_size=3).map(" ".join)).map(lambda p: f"{p[0]} {{ {p[1]} }}"),
    max_leaves=6,
)


@given(st.lists(_TEXTS, max_size=4).map("\n".join))
def test_any_configuration_is_settings_or_refused(text: str) -> None:
    """Whatever the fields and their types, the outcome is settings or InvalidModel."""
    try:
        settings, warning = parse(text)
    except InvalidModel:
        return
    assert isinstance(settings, ModelSettings)
    assert warning == "" or warning.startswith("config.pbtxt")


def test_model_toml_wins(tmp_path: Path) -> None:
    """Where both stand model.toml counts; labels and shapes are joined entry by entry."""
    (tmp_path / "config.pbtxt").write_text(WHOLE)
    (tmp_path / "model.toml").write_text('versions = "all"\nengine = "auto"\n[shapes]\nimage = [3, -1, -1]\n')
    given, _ = read_triton(tmp_path / "config.pbtxt", (tmp_path,), "m")
    settings = read_settings(tmp_path / "model.toml", (tmp_path,), given)
    assert (settings.versions, settings.engine, settings.max_batch) == ("all", "auto", 8)
    assert settings.shapes == {"image": (3, -1, -1), "scores": (1000,)}
    assert settings.labels == {"scores": "labels.txt"}


def test_a_link_out_of_the_repository_is_refused(tmp_path: Path) -> None:
    """As for model.toml."""
    (tmp_path / "models").mkdir()
    (tmp_path / "secret").write_text("name: 'm'")
    (tmp_path / "models" / "config.pbtxt").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidModel, match="leads out"):
        read_triton(tmp_path / "models" / "config.pbtxt", (tmp_path / "models",), "m")


def test_a_change_is_taken_and_warned_of_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """config.pbtxt is watched like model.toml: its version policy counts, its warning comes once for each content."""
    for version in (1, 2, 3):
        stage.install("m", version)
    stage.settle()
    assert stage.states("m") == {1: "UNLOADED", 2: "UNLOADED", 3: "READY"}
    config = stage.root / "m" / "config.pbtxt"
    with caplog.at_level(logging.WARNING, "inferd.repository"):
        config.write_text("version_policy { latest { num_versions: 2 } } model_warmup { name: 'w' }")
        stage.settle()
        stage.settle()
    assert stage.states("m") == {1: "UNLOADED", 2: "READY", 3: "READY"}
    assert [record.message for record in caplog.records] == [
        "m: config.pbtxt is followed, but not in this: model_warmup"
    ]
    config.write_text("max_batch_size 8")
    stage.settle()
    assert "expected ':' or '{'" in stage.repository.describe("m").reason


def test_an_ensemble_is_named(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """A folder that has nothing but a configuration is told with its reason, and what the configuration says in vain is
    in the one warning."""
    folder = stage.root / "both"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text('platform: "ensemble" ensemble_scheduling { step { model_name: "m" } }')
    with caplog.at_level(logging.WARNING, "inferd.repository"):
        stage.settle()
    assert [record.message for record in caplog.records] == [
        "both: config.pbtxt is followed, but not in this: platform 'ensemble'; ensemble_scheduling"
    ]
    assert "no version in it" in stage.repository.describe("both").reason
    assert stage.repository.is_ready()
    stage.install("both", 1)
    stage.settle()
    assert stage.states("both") == {1: "READY"}
