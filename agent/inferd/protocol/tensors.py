"""The part that requests and responses share: tensor headers, and the walk over them that reads their data.

Every tensor has exactly one source: JSON `data`, a binary section behind the JSON, or (not spoken yet) shared memory.
Sections follow each other in the order of the headers, leave no gap and end with the body.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from inferd.protocol.binary import read_section
from inferd.protocol.datatypes import DATATYPES, Array
from inferd.protocol.errors import ProtocolError
from inferd.protocol.jsondata import MAX_RANK, decode_data

Dim = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Shape = Annotated[tuple[Dim, ...], Meta(max_length=MAX_RANK)]
# numpy refuses empty arrays whose other dimensions multiply beyond the address space.
_MAX_EMPTY = 1 << 40


class TensorParameters(msgspec.Struct, gc=False):
    """The parameters of a tensor that say where its data is; others are ignored."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None
    shared_memory_region: str | None = None


class TensorHeader(msgspec.Struct):
    """An input of a request, or an output of a response, as read."""

    name: str
    datatype: str
    shape: Shape
    parameters: TensorParameters | None = None
    data: Raw = Raw()


class TensorOut(msgspec.Struct, gc=False):
    """A tensor as written: flat `data`, or `parameters` that tell its section's size, never both."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] | UnsetType = UNSET
    data: Any = UNSET


def count_elements(shape: tuple[int, ...], name: str) -> int:
    """The product of the dimensions; exact, as Python's integers do not wrap."""
    count = math.prod(shape)
    if count == 0 and math.prod(dim for dim in shape if dim) > _MAX_EMPTY:
        raise ProtocolError(f"tensor '{name}': shape {list(shape)} is too large, even for an empty tensor")
    return count


def read_tensors(
    headers: Sequence[TensorHeader], body: bytes | memoryview, offset: int, has_specials: bool
) -> dict[str, Array]:
    """All tensors by name, read-only; binary sections are views on `body`, beginning at `offset`."""
    size = len(body)
    tensors: dict[str, Array] = {}
    for header in headers:
        name, shape = header.name, header.shape
        dtype = DATATYPES.get(header.datatype)
        if dtype is None:
            raise ProtocolError(f"tensor '{name}': unknown datatype '{header.datatype}', not in {', '.join(DATATYPES)}")
        if name in tensors:
            raise ProtocolError(f"tensor '{name}' is given twice")
        count = count_elements(shape, name)
        nbytes = _section_bytes(header)
        if nbytes is None:
            tensors[name] = decode_data(header.data, header.datatype, shape, count, name, has_specials)
            continue
        if nbytes > size - offset:
            raise ProtocolError(
                f"tensor '{name}': binary_data_size is {nbytes}, {size - offset} bytes are left behind the JSON header"
            )
        tensors[name] = read_section(body, offset, nbytes, dtype, shape, count, name)
        offset += nbytes
    if offset != size:
        raise ProtocolError(f"{size - offset} bytes are left over behind the last tensor")
    return tensors


def _section_bytes(header: TensorHeader) -> int | None:
    """The size of the binary section; None when the data is JSON. Refuses a tensor with no source or with several."""
    parameters = header.parameters
    has_data = len(memoryview(header.data)) > 0 and bytes(memoryview(header.data)[:5]) != b"null"
    if parameters is None or parameters.binary_data_size is None is parameters.shared_memory_region:
        if not has_data:
            raise ProtocolError(f"tensor '{header.name}' has neither data nor binary_data_size")
        return None
    if parameters.shared_memory_region is not None:
        raise ProtocolError(f"tensor '{header.name}': shared memory is not enabled")
    if has_data:
        raise ProtocolError(f"tensor '{header.name}' has both data and binary_data_size, one is needed")
    return parameters.binary_data_size
