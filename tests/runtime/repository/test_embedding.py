"""`[embedding]`: looked at while the model loads, so that a slip is told then."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferd_runtime.errors import InvalidModel
from inferd_runtime.repository.embedding import embedding_of, read_tokenizer
from inferd_runtime.repository.settings import EmbeddingSettings
from inferd_runtime.spec import ModelSpec
from inferd_runtime.tensor import TensorSpec
from tests import onnx_models
from tests.runtime.repository.stage import Stage

TOKENIZER = b'{"model": {"type": "WordLevel"}}'


def tensor(name: str, datatype: str = "INT64", shape: tuple[int, ...] = (-1, -1)) -> TensorSpec:
    return TensorSpec(name, onnx_models.DATATYPES[datatype], shape)


IDS = tensor("input_ids")
HIDDEN = tensor("hidden", "FP32", (-1, -1, 8))
POOLED = tensor("pooled", "FP32", (-1, 8))


def spec(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (POOLED, HIDDEN)) -> ModelSpec:
    return ModelSpec(inputs, outputs, 64)


@pytest.mark.parametrize(("pooling", "output"), [("mean", "hidden"), ("cls", "hidden"), ("none", "pooled")])
def test_the_output_that_fits_the_pooling_is_found(pooling: str, output: str) -> None:
    """Vectors of tokens have three dimensions, vectors of texts have two."""
    found = embedding_of(spec(IDS), EmbeddingSettings(pooling=pooling), TOKENIZER)  # type: ignore[arg-type]
    assert found is not None
    assert found.output == output


def test_a_model_that_does_not_say_so_is_no_embedder() -> None:
    """Without the table nothing is read and nothing is checked."""
    assert embedding_of(spec(tensor("x", "FP32")), None, b"") is None
    assert read_tokenizer(Path("/nowhere"), None) == b""


@pytest.mark.parametrize(
    ("model", "settings", "told"),
    [
        (spec(IDS, tensor("position_ids")), EmbeddingSettings(), "cannot fill the input 'position_ids'"),
        (spec(tensor("attention_mask")), EmbeddingSettings(), "wants an input 'input_ids'"),
        (spec(tensor("input_ids", "FP32")), EmbeddingSettings(), "it is FP32 of shape"),
        (spec(tensor("input_ids", shape=(4, -1))), EmbeddingSettings(), r"of shape \[4, -1\]"),
        (spec(IDS), EmbeddingSettings(output="pooled"), "wants an output pooled with 3 dimensions"),
        (spec(IDS, outputs=(HIDDEN,)), EmbeddingSettings(pooling="none"), "wants an output of FP32 with 2"),
    ],
)
def test_a_model_that_cannot_embed_is_refused(model: ModelSpec, settings: EmbeddingSettings, told: str) -> None:
    """The reason names the tensor and what it should be."""
    with pytest.raises(InvalidModel, match=told):
        embedding_of(model, settings, TOKENIZER)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_tokenizer_file_is_refused(tmp_path: Path, data: bytes) -> None:
    """A file that cannot be one is told when the model loads."""
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(InvalidModel, match=r"is not a tokenizer\.json"):
        read_tokenizer(tmp_path, EmbeddingSettings())


def test_a_tokenizer_elsewhere_is_refused(tmp_path: Path) -> None:
    """Only the model's own folder is read."""
    (tmp_path / "m").mkdir()
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER)
    with pytest.raises(InvalidModel, match="outside the model's folder"):
        read_tokenizer(tmp_path / "m", EmbeddingSettings("../tokenizer.json"))
    with pytest.raises(InvalidModel, match="cannot be read: No such file"):
        read_tokenizer(tmp_path / "m", EmbeddingSettings())


def test_a_missing_tokenizer_fails_the_load_until_it_comes(stage: Stage) -> None:
    """The file is watched like the model itself."""
    stage.install("m")
    stage.settings("m", "[embedding]\n")
    stage.settle()
    assert "tokenizer 'tokenizer.json' cannot be read" in stage.repository.describe("m").reason
    (stage.root / "m/tokenizer.json").write_bytes(TOKENIZER)
    stage.settle()
    assert "cannot fill the input 'x'" in stage.repository.describe("m").reason
    assert stage.opener.all[0].is_closed
