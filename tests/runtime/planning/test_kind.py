"""The kind of model that a count of operators speaks of."""

from __future__ import annotations

import pytest

from inferd_runtime.planning.kind import Kind, model_kind


@pytest.mark.parametrize(
    ("operators", "kind"),
    [
        ({"Conv": 53, "Relu": 40, "Gemm": 1, "Softmax": 1}, "conv"),
        ({"QLinearConv": 53, "QGemm": 1}, "conv"),
        ({"Convolution": 12, "MatMul": 1, "SoftMax": 1}, "conv"),
        ({"Conv": 38, "MatMul": 13, "Softmax": 3}, "conv"),
        ({"MatMul": 24, "Softmax": 4, "LayerNormalization": 8}, "transformer"),
        ({"Conv": 1, "MatMul": 72, "Softmax": 12}, "transformer"),
        ({"MultiHeadAttention": 12, "MatMul": 24}, "transformer"),
        ({"LSTM": 2, "Conv": 12, "If": 25}, "rnn"),
        ({"GRUSequence": 1, "MatMul": 1}, "rnn"),
        ({"Conv": 60, "LSTM": 2}, "conv"),
        ({"Gemm": 2, "Relu": 1, "Softmax": 1}, "mlp"),
        ({"TreeEnsembleClassifier": 1}, "other"),
        ({}, "other"),
    ],
)
def test_kinds(operators: dict[str, int], kind: Kind) -> None:
    """What most of the work is done by gives the kind, in every engine's names."""
    assert model_kind(operators) == kind
