"""The protocol's datatypes beside numpy's, and the one that has no fixed size: BYTES.

Numeric tensors travel little-endian, row-major and unpadded. A BYTES tensor is an object array of `bytes`; on the wire
each element is a uint32 length followed by that many bytes. Nothing is allocated from a claimed count before it has
been compared with the bytes that are there.
"""

from __future__ import annotations

import struct
from typing import Any

import ml_dtypes
import numpy as np

from inferd.protocol.errors import ProtocolError

Array = np.ndarray[Any, Any]
Buffer = bytes | bytearray | memoryview

BYTES = np.dtype(object)
BOOL = np.dtype(np.bool_)
DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": BOOL,
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": BYTES,
}
# Datatypes without a JSON form.
BINARY_ONLY = frozenset({"FP16", "BF16"})
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_LENGTH = struct.Struct("<I")


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a dtype; text and bytes dtypes are BYTES. Raises ProtocolError where there is none."""
    name = _NAMES.get(dtype)
    if name is not None:
        return name
    if dtype.kind in "SUT":
        return "BYTES"
    name = _NAMES.get(dtype.newbyteorder("<"))
    if name is None:
        raise ProtocolError(f"numpy's {dtype} has no datatype in the protocol; known are {', '.join(DATATYPES)}")
    return name


def config_type(datatype: str) -> str:
    """The name that the model configuration uses: `TYPE_FP32`, and `TYPE_STRING` for BYTES."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def as_tensor(value: Any) -> Array:
    """`value` as an array that can be sent: little-endian numbers, or objects that are all `bytes`."""
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    name = datatype_of(array.dtype)
    if name == "BYTES":
        return _bytes_objects(array)
    wanted = DATATYPES[name]
    return array if array.dtype == wanted else array.astype(wanted)


def _bytes_objects(array: Array) -> Array:
    flat = np.empty(array.size, BYTES)
    for index, element in enumerate(array.ravel().tolist()):
        if isinstance(element, str):
            flat[index] = element.encode()
        elif isinstance(element, (bytes, bytearray, memoryview)):
            flat[index] = bytes(element)
        else:
            raise ProtocolError(f"a BYTES tensor holds str or bytes, not {type(element).__name__}")
    return flat.reshape(array.shape)


def sendable(array: Array) -> Array:
    """`array` itself where its dtype is the protocol's own, else what `as_tensor` makes of it."""
    return array if array.dtype in _NAMES else as_tensor(array)


def encode_bytes(array: Array) -> bytes:
    """The wire form of an object array of `bytes` (or `str`, sent as UTF-8)."""
    pack = _LENGTH.pack
    parts: list[bytes] = []
    for element in array.ravel().tolist():
        raw = element.encode() if isinstance(element, str) else element
        if not isinstance(raw, bytes):
            raise ProtocolError(f"a BYTES tensor holds bytes, not {type(raw).__name__}")
        parts.append(pack(len(raw)))
        parts.append(raw)
    return b"".join(parts)


def decode_bytes(section: memoryview, shape: tuple[int, ...], count: int, name: str) -> Array:
    """The `count` elements of a section as an object array; the section must end with the last one."""
    end = len(section)
    if count * 4 > end:
        raise ProtocolError(f"tensor '{name}': {end} bytes cannot hold {count} BYTES elements")
    raw = bytes(section)
    unpack = _LENGTH.unpack_from
    flat = np.empty(count, BYTES)
    at = 0
    for index in range(count):
        if end - at < 4:
            raise ProtocolError(f"tensor '{name}': element {index} of {count} has no length, the data ends before it")
        start = at + 4
        at = start + unpack(raw, at)[0]
        if at > end:
            raise ProtocolError(f"tensor '{name}': element {index} claims {at - start} bytes, {end - start} are left")
        flat[index] = raw[start:at]
    if at != end:
        raise ProtocolError(f"tensor '{name}': {end - at} bytes are left after its {count} BYTES elements")
    return flat.reshape(shape)
