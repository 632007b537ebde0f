"""all-MiniLM-L6-v2 as ONNX, built from its published weights, and the same network in plain numpy to compare with.

The graph is BERT as its paper has it: embeddings, six layers of attention and a GELU network, layer normalisation after
each. Linear weights are transposed once, so that the graph has none of it. The INT8 version comes from inferd's own
quantisation room, calibrated on sentences that no test reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from inferd_runtime.quantisation import Report, quantise
from tests.onnx_models import save, value

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]

LAYERS, HEADS, SIZE = 6, 12, 384
HEAD = SIZE // HEADS
EPSILON = 1e-12
MAX_TOKENS = 256
SETTINGS = f"""[embedding]
tokenizer = "tokenizer.json"
pooling = "mean"
normalise = true
max_tokens = {MAX_TOKENS}
"""
# Behind a GELU a few values are far larger than the rest, and one scale for all of them leaves the rest few steps.
KEEP_FLOAT = tuple(f"encoder.layer.{number}.output.dense.product" for number in range(LAYERS))
CALIBRATION = (
    "A recipe for bread needs flour, water, salt and time.",
    "The committee will meet again on Thursday to discuss the budget for next year.",
    "How do I reset the password of my account?",
    "Volcanoes form where plates of the crust pull apart or collide.",
    "def add(a, b): return a + b",
    "Two goals in the last five minutes turned the match around.",
    "The patient was given antibiotics and recovered within a week.",
    "Shares fell by three percent after the company cut its forecast.",
    "hello",
    "Mountains, lakes, forests: the valley has all of it, and in autumn hardly anybody comes.",
    "Bitte senden Sie uns die Rechnung bis Ende des Monats.",
    "It was raining, so we stayed inside and played cards until the power came back. Then somebody put the kettle on, "
    "and the evening went by with stories that everyone had heard before.",
)


def build(weights_file: Path, target: Path) -> Path:
    """Write the ONNX model of the weights."""
    weights = load_file(weights_file)
    graph = _Graph(weights)
    hidden = graph.embeddings()
    mask = graph.mask()
    for number in range(LAYERS):
        hidden = graph.layer(f"encoder.layer.{number}", hidden, mask)
    graph.add("Identity", [hidden], "last_hidden_state")
    shape = ("batch", "tokens")
    inputs = [value(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask", "token_type_ids")]
    output = value("last_hidden_state", TensorProto.FLOAT, (*shape, SIZE))
    return save(target, graph.nodes, inputs, [output], graph.constants)


class _Graph:
    """Nodes and constants as they come together."""

    def __init__(self, weights: Weights) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}
        self._weights = weights

    def add(self, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=f"{operator}.{output}", **attributes))
        return output

    def constant(self, name: str, array: Array) -> str:
        self.constants[name] = array
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self._weights[name])

    def number(self, number: float) -> str:
        return self.constant(f"number.{number}", np.array(number, np.float32))

    def ints(self, *numbers: int) -> str:
        return self.constant(f"ints.{'.'.join(map(str, numbers))}", np.array(numbers, np.int64))

    def normalised(self, name: str, given: str) -> str:
        scale, bias = self.weight(f"{name}.LayerNorm.weight"), self.weight(f"{name}.LayerNorm.bias")
        return self.add("LayerNormalization", [given, scale, bias], axis=-1, epsilon=EPSILON)

    def linear(self, name: str, given: str) -> str:
        turned = self.constant(f"{name}.turned", np.ascontiguousarray(self._weights[f"{name}.weight"].T))
        return self.add("Add", [self.add("MatMul", [given, turned], f"{name}.product"), self.weight(f"{name}.bias")])

    def embeddings(self) -> str:
        words = self.add("Gather", [self.weight("embeddings.word_embeddings.weight"), "input_ids"])
        kinds = self.add("Gather", [self.weight("embeddings.token_type_embeddings.weight"), "token_type_ids"])
        length = self.add("Slice", [self.add("Shape", ["input_ids"]), self.ints(1), self.ints(2)])
        table = self.weight("embeddings.position_embeddings.weight")
        places = self.add("Slice", [table, self.ints(0), length, self.ints(0)])
        return self.normalised("embeddings", self.add("Add", [self.add("Add", [words, kinds]), places]))

    def mask(self) -> str:
        """0 for tokens that count and far below for others, shaped to be added to the scores of all heads."""
        counts = self.add("Cast", ["attention_mask"], to=TensorProto.FLOAT)
        wide = self.add("Unsqueeze", [counts, self.ints(1, 2)])
        return self.add("Mul", [self.add("Sub", [self.number(1.0), wide]), self.number(-10000.0)])

    def layer(self, name: str, given: str, mask: str) -> str:
        query, key, values = (
            self.add("Reshape", [self.linear(f"{name}.attention.self.{part}", given), self.ints(0, 0, HEADS, HEAD)])
            for part in ("query", "key", "value")
        )
        query = self.add("Transpose", [query], perm=[0, 2, 1, 3])
        key = self.add("Transpose", [key], perm=[0, 2, 3, 1])
        values = self.add("Transpose", [values], perm=[0, 2, 1, 3])
        scores = self.add("Div", [self.add("MatMul", [query, key]), self.number(math.sqrt(HEAD))])
        shares = self.add("Softmax", [self.add("Add", [scores, mask])], axis=-1)
        mixed = self.add("Transpose", [self.add("MatMul", [shares, values])], perm=[0, 2, 1, 3])
        mixed = self.add("Reshape", [mixed, self.ints(0, 0, SIZE)])
        output = self.linear(f"{name}.attention.output.dense", mixed)
        attended = self.normalised(f"{name}.attention.output", self.add("Add", [output, given]))
        inner = self.gelu(self.linear(f"{name}.intermediate.dense", attended))
        return self.normalised(
            f"{name}.output", self.add("Add", [self.linear(f"{name}.output.dense", inner), attended])
        )

    def gelu(self, given: str) -> str:
        erf = self.add("Erf", [self.add("Div", [given, self.number(math.sqrt(2.0))])])
        half = self.add("Mul", [given, self.number(0.5)])
        return self.add("Mul", [half, self.add("Add", [erf, self.number(1.0)])])


def feeds(tokenizer: Tokenizer, text: str) -> dict[str, Array]:
    """One text as the model's inputs."""
    ids = np.array([tokenizer.encode(text).ids], np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def open_tokenizer(folder: Path) -> Tokenizer:
    """The model's tokenizer without the lengths that its file brings."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def make(folder: Path) -> Report:
    """Complete `folder`, which has the weights and the tokenizer, into a model folder with both versions."""
    model = build(folder / "weights" / "model.safetensors", folder / "1" / "model.onnx")
    (folder / "model.toml").write_text(SETTINGS)
    tokenizer = open_tokenizer(folder)
    samples = [feeds(tokenizer, text) for text in CALIBRATION]
    return quantise(model, model.with_name("model.int8.onnx"), samples, keep_float=KEEP_FLOAT)


def reference(weights: Weights, ids: Sequence[int]) -> Array:
    """The sentence's vector by the original weights, in float64 and the plainest way."""

    def normalised(name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        return centred / scale * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"]

    def linear(name: str, x: Array) -> Array:
        return x @ weights[f"{name}.weight"].astype(np.float64).T + weights[f"{name}.bias"]

    x = (
        weights["embeddings.word_embeddings.weight"][list(ids)].astype(np.float64)
        + weights["embeddings.position_embeddings.weight"][: len(ids)]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    x = normalised("embeddings", x)
    for number in range(LAYERS):
        name = f"encoder.layer.{number}"
        parts = [linear(f"{name}.attention.self.{part}", x) for part in ("query", "key", "value")]
        heads = list(_heads(parts))
        x = normalised(f"{name}.attention.output", linear(f"{name}.attention.output.dense", np.hstack(heads)) + x)
        inner = linear(f"{name}.intermediate.dense", x)
        inner = 0.5 * inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = normalised(f"{name}.output", linear(f"{name}.output.dense", inner) + x)
    mean = x.mean(0)
    return np.asarray(mean / np.linalg.norm(mean))


def _heads(parts: Sequence[Array]) -> Iterator[Array]:
    for head in range(HEADS):
        query, key, values = (part[:, head * HEAD : (head + 1) * HEAD] for part in parts)
        scores = query @ key.T / math.sqrt(HEAD)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        yield shares / shares.sum(-1, keepdims=True) @ values
