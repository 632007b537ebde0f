"""The classification extension: a tensor of scores as its best classes, spelled out.

An element is `"value:index"` or `"value:index:label"` with six decimals, best first; equal scores keep index order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inferd.protocol.datatypes import BYTES, Array, datatype_of
from inferd.protocol.errors import ProtocolError

_UNFIT = frozenset({"BOOL", "FP16", "BF16", "BYTES"})


def classify(array: Array, k: int, labels: Sequence[str] = (), *, batched: bool = True, name: str = "") -> Array:
    """The `k` best classes as BYTES of shape `[rows, min(k, n)]`, or `[min(k, n)]` when not `batched`.

    All dimensions behind the rows count as one list of classes.
    """
    datatype = datatype_of(array.dtype)
    if datatype in _UNFIT:
        raise ProtocolError(f"output '{name}': classification needs numbers, it is {datatype}")
    has_rows = batched and array.ndim > 0
    rows = array.reshape(len(array), -1) if has_rows and array.size else array.reshape(1, -1)
    if has_rows and not array.size:
        rows = array.reshape(len(array), 0)
    best = _best(rows, min(k, rows.shape[1]))
    result = np.empty(best.shape, BYTES)
    for row, indices in enumerate(best.tolist()):
        for column, index in enumerate(indices):
            result[row, column] = _spell(float(rows[row, index]), index, labels)
    return result if has_rows else result[0]


def _best(rows: Array, k: int) -> Array:
    """Indices of the `k` largest in each row; NaN comes last."""
    scores = np.where(np.isnan(rows), -np.inf, rows) if rows.dtype.kind == "f" else rows
    # Reversed twice, so that a stable ascending sort leaves equal scores in index order.
    ascending = np.argsort(scores[:, ::-1], axis=1, kind="stable")
    return np.asarray(rows.shape[1] - 1 - ascending[:, ::-1][:, :k])


def _spell(value: float, index: int, labels: Sequence[str]) -> bytes:
    label = labels[index] if index < len(labels) else ""
    return (f"{value:f}:{index}:{label}" if label else f"{value:f}:{index}").encode()
