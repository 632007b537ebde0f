"""The last look at an array before native code reads its memory: type, alignment and layout must be what was said."""

from __future__ import annotations

import numpy as np

from inferd_runtime.engines import Array
from inferd_runtime.errors import InvalidRequest
from inferd_runtime.tensor import TensorSpec, datatype_name


def settled(spec: TensorSpec, array: Array) -> Array:
    """`array` itself, or an aligned C-contiguous copy where native code could not read it in place."""
    if array.dtype != spec.dtype:
        raise InvalidRequest(f"input {spec.name!r}: expected {spec.datatype}, got {datatype_name(array.dtype)}")
    flags = array.flags
    return array if flags.aligned and flags.c_contiguous else np.array(array, order="C")
