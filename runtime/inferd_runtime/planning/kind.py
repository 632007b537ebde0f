"""What kind of model a count of its operators speaks of: it says which engines and shapes are worth trying first.

Only an order of trials hangs on it, never a choice, so a rough answer will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Kind = Literal["conv", "transformer", "rnn", "mlp", "other"]

# ONNX's names, com.microsoft's, and OpenVINO's.
_RECURRENT = {"LSTM", "GRU", "RNN", "LSTMSequence", "GRUSequence", "RNNSequence", "LSTMCell", "GRUCell", "RNNCell"}
_CONVOLUTIONS = {
    "Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "NhwcConv", "Convolution", "GroupConvolution",
    "ConvolutionBackpropData", "GroupConvolutionBackpropData",
}  # fmt: skip
_PRODUCTS = {
    "MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "QGemm", "FusedMatMul", "FusedGemm", "MatMulNBits",
    "DynamicQuantizeMatMul", "Einsum",
}  # fmt: skip
_ATTENTION = {
    "Attention", "QAttention", "MultiHeadAttention", "GroupQueryAttention", "DecoderMaskedMultiHeadAttention",
    "ScaledDotProductAttention",
}  # fmt: skip
_SOFTMAX = {"Softmax", "SoftMax", "QLinearSoftmax"}
# A block of attention has six products: three projections, two of attention itself, one out of it.
_PRODUCTS_OF_A_BLOCK = 6


def model_kind(operators: Mapping[str, int]) -> Kind:
    """`operators` counts a model's nodes by operator type."""

    def count(names: set[str]) -> int:
        return sum(operators.get(name, 0) for name in names)

    convolutions, products = count(_CONVOLUTIONS), count(_PRODUCTS)
    if operators.keys() & _RECURRENT and convolutions <= 10 * count(_RECURRENT):
        return "rnn"
    blocks = count(_ATTENTION) or min(count(_SOFTMAX), products // _PRODUCTS_OF_A_BLOCK)
    if blocks and convolutions <= 4 * blocks:
        return "transformer"
    if convolutions:
        return "conv"
    return "mlp" if products else "other"
