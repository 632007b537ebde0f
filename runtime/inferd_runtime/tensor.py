"""What a tensor is inside the runtime: a numpy array described by a `TensorSpec`.

Numeric tensors are C-contiguous little-endian numpy arrays, BF16 as `ml_dtypes.bfloat16`. String tensors are object
arrays whose elements are `bytes` (an engine that wants text decodes them itself). Nothing here copies or allocates.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
STRING = np.dtype(object)

# The datatype names of the Open Inference Protocol, which error messages and metadata use.
DATATYPE_NAMES: dict[np.dtype[np.generic], str] = {
    np.dtype(np.bool_): "BOOL",
    np.dtype(np.uint8): "UINT8",
    np.dtype(np.uint16): "UINT16",
    np.dtype(np.uint32): "UINT32",
    np.dtype(np.uint64): "UINT64",
    np.dtype(np.int8): "INT8",
    np.dtype(np.int16): "INT16",
    np.dtype(np.int32): "INT32",
    np.dtype(np.int64): "INT64",
    np.dtype(np.float16): "FP16",
    BFLOAT16: "BF16",
    np.dtype(np.float32): "FP32",
    np.dtype(np.float64): "FP64",
    STRING: "BYTES",
}


def datatype_name(dtype: np.dtype[np.generic]) -> str:
    """The Open Inference Protocol's name of a dtype, or numpy's own name where it has none."""
    return DATATYPE_NAMES.get(dtype, str(dtype))


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model: `shape` includes the batch dimension; -1 is a free dimension."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def datatype(self) -> str:
        return datatype_name(self.dtype)

    @property
    def is_free(self) -> bool:
        """Whether any dimension is free."""
        return any(dim < 0 for dim in self.shape)
