"""MiniLM as built here gives the vectors of its original weights, and its INT8 version nearly so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

from tests.models import minilm
from tests.models.fixtures import fetched_models as fetched_models

TEXTS = (
    "That is a happy person",
    "Today is a sunny day",
    "The quick brown fox jumps over the lazy dog; then it rests.",
)


@pytest.mark.parametrize(("file", "lowest"), [("model.onnx", 0.99999), ("model.int8.onnx", 0.97)])
def test_vectors_agree_with_the_original(fetched_models: Path, file: str, lowest: float) -> None:
    """Cosine with a plain numpy pass over the published weights."""
    folder = fetched_models / "minilm"
    weights, tokenizer = load_file(folder / "weights" / "model.safetensors"), minilm.open_tokenizer(folder)
    session = onnxruntime.InferenceSession(folder / "1" / file, providers=["CPUExecutionProvider"])
    for text in TEXTS:
        inputs = minilm.feeds(tokenizer, text)
        [hidden] = session.run(None, inputs)
        mean = hidden[0].mean(0)
        assert mean / np.linalg.norm(mean) @ minilm.reference(weights, inputs["input_ids"][0]) >= lowest


def test_int8_is_smaller(fetched_models: Path) -> None:
    """The table of words stays float, and is half of it."""
    sizes = [(fetched_models / "minilm" / "1" / file).stat().st_size for file in ("model.int8.onnx", "model.onnx")]
    assert sizes[0] < 0.8 * sizes[1]
