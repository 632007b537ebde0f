"""The part that requests and responses share: tensor headers, and the walk over them that reads their data.

Every tensor has exactly one source: JSON `data`, a binary section behind the JSON, or (not spoken yet) shared memory.
Sections follow each other in the order of the headers, leave no gap and end with the body.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
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
    data: Raw = msgspec.field(default_factory=Raw)  # a schema cannot show a default of raw JSON


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


class Place(NamedTuple):
    """Where one tensor's data is: a binary section of the body, or the JSON of its header (`nbytes` None)."""

    header: TensorHeader
    dtype: np.dtype[np.generic]
    elements: int
    offset: int
    nbytes: int | None


def place_tensors(headers: Sequence[TensorHeader], size: int, offset: int) -> list[Place]:
    """Check everything that headers claim against a body of `size` bytes, whose sections begin at `offset`."""
    places: list[Place] = []
    names: set[str] = set()
    for header in headers:
        name = header.name
        dtype = DATATYPES.get(header.datatype)
        if dtype is None:
            raise ProtocolError(f"tensor '{name}': unknown datatype '{header.datatype}', not in {', '.join(DATATYPES)}")
        if name in names:
            raise ProtocolError(f"tensor '{name}' is given twice")
        names.add(name)
        count = count_elements(header.shape, name)
        nbytes = _section_bytes(header)
        places.append(Place(header, dtype, count, offset, nbytes))
        if nbytes is None:
            continue
        if nbytes > size - offset:
            raise ProtocolError(
                f"tensor '{name}': binary_data_size is {nbytes}, {size - offset} bytes are left behind the JSON header"
            )
        offset += nbytes
    if offset != size:
        raise ProtocolError(f"{size - offset} bytes are left over behind the last tensor")
    return places


def read_tensors(places: Sequence[Place], body: bytes | memoryview, has_specials: bool) -> dict[str, Array]:
    """All tensors by name, read-only; binary sections are views on `body`."""
    tensors: dict[str, Array] = {}
    for header, dtype, count, offset, nbytes in places:
        name = header.name
        if nbytes is None:
            tensors[name] = decode_data(header.data, header.datatype, header.shape, count, name, has_specials)
        else:
            tensors[name] = read_section(body, offset, nbytes, dtype, header.shape, count, name)
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
