"""Tensors as raw bytes: views on a body when reading, buffers for the transport when writing.

A view never outlives its body's buffer and is never writable. A section is copied only when it does not begin at a
multiple of its item size, which engines cannot read, or when a BOOL byte is neither 0 nor 1.
"""

from __future__ import annotations

import numpy as np

from inferd.protocol.datatypes import BOOL, BYTES, Array, decode_bytes, encode_bytes
from inferd.protocol.errors import ProtocolError

# Up to this size a copy is cheaper than keeping a view alive and sending it as a buffer of its own.
COPY_BYTES = 16 << 10
# JSON headers are padded with spaces to a multiple of this, so that the first tensor behind them is aligned.
ALIGN_BYTES = 16
_UINT8 = np.dtype(np.uint8)


def read_section(
    body: bytes | memoryview, offset: int, nbytes: int, dtype: np.dtype[np.generic], shape: tuple[int, ...], count: int,
    name: str,
) -> Array:  # fmt: skip
    """The tensor in `body[offset : offset + nbytes]`, which the caller has seen to be there; read-only."""
    if dtype is BYTES:
        array = decode_bytes(memoryview(body)[offset : offset + nbytes], shape, count, name)
        array.flags.writeable = False
        return array
    if count * dtype.itemsize != nbytes:
        raise ProtocolError(
            f"tensor '{name}': shape {list(shape)} of {dtype.itemsize}-byte elements takes {count * dtype.itemsize} "
            f"bytes, binary_data_size is {nbytes}"
        )
    if dtype is BOOL:
        return _read_bool(np.ndarray(shape, _UINT8, body, offset))
    array = np.ndarray(shape, dtype, body, offset)
    if not array.flags.aligned:
        array = array.copy()
        array.flags.writeable = False
    return array


def _read_bool(octets: Array) -> Array:
    if octets.size and octets.max() > 1:
        array: Array = octets != 0
        array.flags.writeable = False
        return array
    flags: Array = octets.view(BOOL)
    return flags


def write_section(array: Array) -> bytes | memoryview:
    """The raw bytes of a tensor in wire order; a view on the array where copying would cost more."""
    if array.dtype == BYTES:
        return encode_bytes(array)
    if array.nbytes <= COPY_BYTES or not array.flags.c_contiguous:
        return array.tobytes()
    octets: Array = array.reshape(-1).view(_UINT8)
    return octets.data


def pad_header(header: bytes) -> bytes:
    """The JSON header, followed by spaces up to the next multiple of ALIGN_BYTES."""
    return header + b" " * (-len(header) % ALIGN_BYTES)
