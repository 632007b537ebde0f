"""Models that the benches need and nobody has to download: built here, from fixed seeds, with INT8 versions.

    python -m bench.models          # makes them, once, and says where they are

`made(cache)` gives a folder each, as the daemon serves it: 1/model.onnx, 1/model.int8.onnx, and in calibration/ the
samples that the INT8 version was made from. The graphs are those of real models, and so are time and memory. Weights
are noise of the usual size: what the models say means nothing, and the ResNet says nearly the same of every picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from tests import onnx_models
from tests.models import fetch

Array = np.ndarray[Any, Any]

SAMPLES = 16
SEED = 20240611
RESNET, MLP, ENCODER = "resnet50", "mlp", "encoder"
SIDE = 224
FEATURES, HIDDEN = 784, 1024
WORDS, TOKENS, WIDTH, HEADS, LAYERS = 1000, 64, 128, 4, 4
CLASSES = 10


class Graph:
    """Nodes and weights as they are added, each named by its number."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, Array] = {}
        self._rng = np.random.default_rng([SEED, seed])

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        """A node; the name of its output."""
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=f"{output}_node", **attributes))
        return output

    def constant(self, values: object, dtype: type[np.generic] = np.float32) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights[name] = np.array(values, dtype)
        return name

    def noise(self, shape: Sequence[int], scale: float) -> str:
        return self.constant(self._rng.standard_normal(shape, np.float32) * np.float32(scale))

    def dense(self, x: str, taken: int, given: int, gain: float = 1.0) -> str:
        product = self.add("MatMul", x, self.noise((taken, given), gain * taken**-0.5))
        return self.add("Add", product, self.noise((given,), 0.1))

    def convolution(self, x: str, taken: int, given: int, side: int, stride: int = 1, gain: float = 2**0.5) -> str:
        """With the bias that batch normalisation leaves when it is folded in, as exporters do."""
        weights = self.noise((given, taken, side, side), gain * (taken * side * side) ** -0.5)
        sizes = {"kernel_shape": [side] * 2, "strides": [stride] * 2, "pads": [side // 2] * 4}
        return self.add("Conv", x, weights, self.noise((given,), 0.05), **sizes)

    def save(self, path: Path, source: tuple[str, int, Sequence[onnx_models.Dim]], result: str, classes: int) -> None:
        """`source` is the input's name, element type and shape; the output is called "scores"."""
        self.nodes.append(helper.make_node("Identity", [result], ["scores"]))
        scores = onnx_models.value("scores", TensorProto.FLOAT, ["N", classes])
        onnx_models.save(path, self.nodes, [onnx_models.value(*source)], [scores], self.weights)


def build_mlp(path: Path) -> None:
    """Two hidden layers: 1.9 million weights, which many rows in one run share."""
    graph = Graph(1)
    hidden = graph.add("Relu", graph.dense("x", FEATURES, HIDDEN))
    hidden = graph.add("Relu", graph.dense(hidden, HIDDEN, HIDDEN, gain=2**0.5))
    scores = graph.dense(hidden, HIDDEN, CLASSES, gain=3.0)
    graph.save(path, ("x", TensorProto.FLOAT, ["N", FEATURES]), graph.add("Softmax", scores, axis=-1), CLASSES)


def build_resnet(path: Path) -> None:
    """ResNet-50 with its strides in the 3 x 3 convolutions: 25.6 million weights."""
    graph = Graph(2)
    x = graph.add("Relu", graph.convolution("x", 3, 64, side=7, stride=2))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    taken = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            x = bottleneck(graph, x, taken, width, stride if block == 0 else 1)
            taken = 4 * width
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.save(path, ("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE]), graph.dense(x, taken, 1000), 1000)


def bottleneck(graph: Graph, x: str, taken: int, width: int, stride: int) -> str:
    """1 x 1 down, 3 x 3, 1 x 1 up, and past them the input; the small last gain keeps sixteen of them from growing."""
    inner = graph.add("Relu", graph.convolution(x, taken, width, side=1))
    inner = graph.add("Relu", graph.convolution(inner, width, width, side=3, stride=stride))
    inner = graph.convolution(inner, width, 4 * width, side=1, gain=0.5)
    if taken != 4 * width:
        x = graph.convolution(x, taken, 4 * width, side=1, stride=stride, gain=1.0)
    return graph.add("Relu", graph.add("Add", inner, x))


def build_encoder(path: Path) -> None:
    """A transformer encoder over 64 tokens that tells a class by the first: 0.9 million weights."""
    graph = Graph(3)
    x = graph.add("Gather", graph.noise((WORDS, WIDTH), 1.0), "tokens", axis=0)
    x = normalised(graph, graph.add("Add", x, graph.noise((TOKENS, WIDTH), 0.3)))
    for _ in range(LAYERS):
        x = normalised(graph, graph.add("Add", x, attention(graph, x)))
        inner = gelu(graph, graph.dense(x, WIDTH, 4 * WIDTH))
        x = normalised(graph, graph.add("Add", x, graph.dense(inner, 4 * WIDTH, WIDTH)))
    first = graph.add("Gather", x, graph.constant(0, np.int64), axis=1)
    tokens = ("tokens", TensorProto.INT64, ["N", TOKENS])
    graph.save(path, tokens, graph.dense(first, WIDTH, CLASSES, gain=3.0), CLASSES)


def normalised(graph: Graph, x: str) -> str:
    ones, zeros = graph.constant(np.ones(WIDTH)), graph.constant(np.zeros(WIDTH))
    return graph.add("LayerNormalization", x, ones, zeros, axis=-1)


def gelu(graph: Graph, x: str) -> str:
    """x * (1 + erf(x / sqrt 2)) / 2, in the steps that exporters write."""
    error = graph.add("Erf", graph.add("Div", x, graph.constant(2**0.5)))
    product = graph.add("Mul", x, graph.add("Add", error, graph.constant(1)))
    return graph.add("Mul", product, graph.constant(0.5))


def attention(graph: Graph, x: str) -> str:
    """Every token looks at all, in four heads."""
    split = graph.constant([0, TOKENS, HEADS, WIDTH // HEADS], np.int64)

    def heads(axes: list[int]) -> str:
        return graph.add("Transpose", graph.add("Reshape", graph.dense(x, WIDTH, WIDTH), split), perm=axes)

    query, key, value = heads([0, 2, 1, 3]), heads([0, 2, 3, 1]), heads([0, 2, 1, 3])
    weights = graph.add("Div", graph.add("MatMul", query, key), graph.constant((WIDTH // HEADS) ** 0.5))
    seen = graph.add("MatMul", graph.add("Softmax", weights, axis=-1), value)
    joined = graph.add("Transpose", seen, perm=[0, 2, 1, 3])
    whole = graph.add("Reshape", joined, graph.constant([0, TOKENS, WIDTH], np.int64))
    return graph.dense(whole, WIDTH, WIDTH)


def images(rng: np.random.Generator, rows: int) -> Array:
    """Coloured patches under a little grain: pictures that differ, unlike plain noise."""
    patches = rng.normal(size=(rows, 3, 7, 7)).astype(np.float32).repeat(SIDE // 7, 2).repeat(SIDE // 7, 3)
    return patches + rng.normal(0, 0.2, patches.shape).astype(np.float32)


def vectors(rng: np.random.Generator, rows: int) -> Array:
    return rng.normal(size=(rows, FEATURES)).astype(np.float32)


def sentences(rng: np.random.Generator, rows: int) -> Array:
    return rng.integers(0, WORDS, (rows, TOKENS), np.int64)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model: what writes it, its input and what draws rows of that."""

    build: Callable[[Path], None]
    input: str
    draw: Callable[[np.random.Generator, int], Array]


RECIPES = {
    RESNET: Recipe(build_resnet, "x", images),
    MLP: Recipe(build_mlp, "x", vectors),
    ENCODER: Recipe(build_encoder, "tokens", sentences),
}


def made(cache: Path, names: Sequence[str] = tuple(RECIPES)) -> dict[str, Path]:
    """The folder of each model, NAME, made unless it is there; in `cache`, which other processes may share."""
    key = fetch.digest(fetch.int8_key().encode(), Path(__file__).read_bytes(), Path(onnx_models.__file__).read_bytes())
    root = cache / f"bench-models-{key}"
    root.mkdir(parents=True, exist_ok=True)
    with fetch.locked(cache / "lock"):
        return {name: fetch.made_once(root / name, partial(make, name)) for name in names}


def make(name: str, folder: Path) -> None:
    """One model, its calibration samples and its INT8 version."""
    from inferd_runtime.quantisation import quantise

    recipe = RECIPES[name]
    samples = recipe.draw(np.random.default_rng(SEED), SAMPLES)
    (folder / "calibration").mkdir()
    np.savez(folder / "calibration" / "samples.npz", **{recipe.input: samples})
    model = folder / "1" / "model.onnx"
    recipe.build(model)
    feeds = [{recipe.input: samples[start : start + 4]} for start in range(0, SAMPLES, 4)]
    report = quantise(model, model.with_name("model.int8.onnx"), feeds)
    print(f"{name}: {report.before_bytes} -> {report.after_bytes} bytes, cosine {min(report.similarity.values()):.4f}")


def main() -> None:
    """Make them, say where and how long it took."""
    start_s = time.monotonic()
    for folder in made(fetch.cache_root()).values():
        print(folder)
    print(f"{time.monotonic() - start_s:.1f} s")


if __name__ == "__main__":
    main()
