"""The part that requests and responses share: tensor headers, and the walk over them that reads their data.

Every tensor has exactly one source: JSON `data`, a binary section behind the JSON, or a region of shared memory, which
is not read here. Sections follow each other in the order of the headers, leave no gap and end with the body.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Raw, UnsetType

from inferd.protocol.binary import read_section
from inferd.protocol.datatypes import DATATYPES, Array
from inferd.protocol.errors import ProtocolError
from inferd.protocol.jsondata import MAX_RANK, decode_data
from inferd.protocol.regions import Reference, RegionRef, place_of, refer

Dim = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Shape = Annotated[tuple[Dim, ...], Meta(max_length=MAX_RANK)]
# numpy refuses empty arrays whose other dimensions multiply beyond the address space.
_MAX_EMPTY = 1 << 40


class TensorParameters(msgspec.Struct, gc=False):
    """The parameters of a tensor that say where its data is; others are ignored."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None
    shared_memory_region: str | None = None
    shared_memory_offset: Annotated[int, Meta(ge=0)] | None = None
    shared_memory_byte_size: Annotated[int, Meta(ge=0)] | None = None


class TensorHeader(msgspec.Struct):
    """An input of a request, or an output of a response, as read."""

    name: str
    datatype: str
    shape: Shape
    parameters: TensorParameters | None = None
    data: Raw = msgspec.field(default_factory=Raw)  # a schema cannot show a default of raw JSON


class TensorOut(msgspec.Struct, gc=False):
    """A tensor as written: flat `data`, or `parameters` that tell its section's size or its region, or, of an output in
    a region, neither."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int | str] | UnsetType = UNSET
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


def place_tensors(
    headers: Sequence[TensorHeader], size: int, offset: int, offered: Mapping[str, RegionRef] | None = None
) -> tuple[list[Place], tuple[Reference, ...]]:
    """Check everything that headers claim against a body of `size` bytes, whose sections begin at `offset`.

    Tensors in regions come beside the others. `offered` are the places for outputs, by which a response is read: a
    request names its regions itself.
    """
    places: list[Place] = []
    references: list[Reference] = []
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
        source = _source(header) if offered is None else _answered_source(header, offered)
        if isinstance(source, RegionRef):
            make = refer if offered is None else Reference
            references.append(make(name, dtype, header.shape, count, source))
            continue
        places.append(Place(header, dtype, count, offset, source))
        if source is None:
            continue
        if source > size - offset:
            raise ProtocolError(
                f"tensor '{name}': binary_data_size is {source}, {size - offset} bytes are left behind the JSON header"
            )
        offset += source
    if offset != size:
        raise ProtocolError(f"{size - offset} bytes are left over behind the last tensor")
    return places, tuple(references)


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


def _source(header: TensorHeader) -> RegionRef | int | None:
    """A region's part, or the size of a binary section; None when the data is JSON. Refuses none and several."""
    parameters = header.parameters
    has_data = _has_data(header)
    if parameters is None or parameters.binary_data_size is None is parameters.shared_memory_region:
        if not has_data:
            raise ProtocolError(f"tensor '{header.name}' has neither data nor binary_data_size")
        return None
    if parameters.shared_memory_region is None:
        if has_data:
            raise ProtocolError(f"tensor '{header.name}' has both data and binary_data_size, one is needed")
        return parameters.binary_data_size
    if has_data or parameters.binary_data_size is not None:
        other = "data" if has_data else "binary_data_size"
        raise ProtocolError(f"tensor '{header.name}' has both {other} and shared_memory_region, one is needed")
    return place_of(
        f"tensor '{header.name}'",
        parameters.shared_memory_region,
        parameters.shared_memory_offset,
        parameters.shared_memory_byte_size,
    )


def _answered_source(header: TensorHeader, offered: Mapping[str, RegionRef]) -> RegionRef | int | None:
    """As `_source` for a response's output: where nothing else is told, it lies in the place offered for it. Servers
    that name the region again are not believed another than that."""
    parameters = header.parameters
    is_inline = _has_data(header) or (parameters is not None and parameters.binary_data_size is not None)
    place = offered.get(header.name)
    if place is not None and not is_inline:
        return place
    if parameters is not None and parameters.shared_memory_region is not None:
        raise ProtocolError(f"tensor '{header.name}' is said to lie in a region that nobody offered for it")
    return _source(header)


def _has_data(header: TensorHeader) -> bool:
    text = memoryview(header.data)
    return len(text) > 0 and bytes(text[:5]) != b"null"
