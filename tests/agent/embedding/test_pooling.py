"""Pooling against the plainest arithmetic, and refusals of what is no vector."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from inferd_agent.embedding import pool
from inferd_runtime import Embedding, EngineFault

OUTPUT = np.array([[[3.0, 4.0], [1.0, 0.0], [9.0, 9.0]], [[0.0, 2.0], [7.0, 7.0], [7.0, 7.0]]], np.float32)
MASK = np.array([[1, 1, 0], [1, 0, 0]])


def how(pooling: Literal["mean", "cls", "none"], *, normalise: bool = False) -> Embedding:
    return Embedding(b"", "hidden", pooling, normalise, 8, False)


@pytest.mark.parametrize(
    ("pooling", "expected"), [("mean", [[2.0, 2.0], [0.0, 2.0]]), ("cls", [[3.0, 4.0], [0.0, 2.0]])]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_tokens_become_one_vector(pooling: Any, expected: list[list[float]], dtype: type) -> None:
    """The mean of the tokens under the mask, or the first token."""
    found = pool(OUTPUT.astype(dtype), MASK, how(pooling))
    assert found.dtype == np.float32
    assert found.tolist() == expected


def test_a_pooled_output_stays() -> None:
    """With pooling "none" the model has done it."""
    assert pool(OUTPUT[:, 0], MASK, how("none")).tolist() == [[3.0, 4.0], [0.0, 2.0]]


def test_vectors_are_normalised() -> None:
    """To length one; a vector of zeros stays one."""
    found = pool(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32), MASK, how("none", normalise=True))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 4, 2), (1, 3, 2), (2, 3), (2,)])
def test_another_shape_than_promised_is_the_models_fault(shape: tuple[int, ...]) -> None:
    """Told with both shapes."""
    with pytest.raises(EngineFault, match=r"does not fit tokens of shape \[2, 3\]"):
        pool(np.zeros(shape, np.float32), MASK, how("mean"))


def test_values_that_are_not_finite_are_told() -> None:
    """JSON has no word for them, and no vector with one is worth anything."""
    with pytest.raises(EngineFault, match="not finite"):
        pool(np.full((2, 2), np.nan, np.float32), MASK, how("none"))
