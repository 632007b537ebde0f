"""A model's output into one vector a text. Pure functions over numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

from inferd_runtime import Embedding, EngineFault

Array = np.ndarray[Any, Any]
_SMALLEST = 1e-12  # no vector is divided by less


def pool(output: Array, mask: Array, embedding: Embedding) -> Array:
    """Vectors of float32, shape [texts, size]. Raises EngineFault where the output holds what no vector can."""
    expected = 2 if embedding.pooling == "none" else 3
    if output.ndim != expected or output.shape[: expected - 1] != mask.shape[: expected - 1]:
        raise EngineFault(
            f"the output {embedding.output!r} has shape {list(output.shape)}, which does not fit tokens of shape "
            f"{list(mask.shape)}"
        )
    vectors = _pooled(output.astype(np.float32, copy=False), mask, embedding.pooling)
    if embedding.normalise:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _SMALLEST)
    if not np.isfinite(vectors).all():
        raise EngineFault(f"the output {embedding.output!r} holds values that are not finite")
    return np.ascontiguousarray(vectors, np.float32)


def _pooled(output: Array, mask: Array, pooling: str) -> Array:
    if pooling == "none":
        return output
    if pooling == "cls":
        first: Array = output[:, 0]
        return first
    weights = mask.astype(np.float32)
    mean: Array = np.einsum("tkd,tk->td", output, weights) / weights.sum(axis=1, keepdims=True)
    return mean
