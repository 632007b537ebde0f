"""Tensors that lie in regions of shared memory: what messages say of them. Nothing here opens or reads a region.

A reference's claims agree with each other: its place holds exactly as many bytes as its shape and datatype take, other
than for BYTES, whose elements tell when they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from inferd.protocol.binary import read_section
from inferd.protocol.datatypes import BYTES, Array
from inferd.protocol.errors import ProtocolError

REGION, REGION_OFFSET, REGION_BYTES = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"


class RegionRef(NamedTuple):
    """`nbytes` bytes of a region, from `offset` on, counted from where the region begins."""

    region: str
    offset: int
    nbytes: int

    @property
    def parameters(self) -> dict[str, int | str]:
        """The place as the parameters of a tensor."""
        return {REGION: self.region, REGION_OFFSET: self.offset, REGION_BYTES: self.nbytes}


NO_PLACES: Mapping[str, RegionRef] = MappingProxyType({})


class Reference(NamedTuple):
    """A tensor whose data is in a region. Of an output, the place's `nbytes` is what was offered, not what it takes."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    elements: int
    place: RegionRef


def place_of(what: str, region: str, offset: int | None, nbytes: int | None) -> RegionRef:
    """The place that a tensor's parameters name. `what` begins the text of the ProtocolError."""
    if not region:
        raise ProtocolError(f"{what}: {REGION} is empty")
    if nbytes is None:
        raise ProtocolError(f"{what}: {REGION} '{region}' comes without {REGION_BYTES}")
    if nbytes < 0 or (offset is not None and offset < 0):
        raise ProtocolError(f"{what}: {REGION_OFFSET} and {REGION_BYTES} must be 0 or more")
    return RegionRef(region, offset or 0, nbytes)


def refer(name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], elements: int, place: RegionRef) -> Reference:
    """A reference whose claims were compared. Raises ProtocolError."""
    if dtype is not BYTES and elements * dtype.itemsize != place.nbytes:
        raise ProtocolError(
            f"tensor '{name}': shape {list(shape)} of {dtype.itemsize}-byte elements takes "
            f"{elements * dtype.itemsize} bytes, {REGION_BYTES} in region '{place.region}' is {place.nbytes}"
        )
    return Reference(name, dtype, shape, elements, place)


def read_reference(reference: Reference, data: bytes | memoryview) -> Array:
    """The tensor in `data`, which is what its place holds: `nbytes` bytes. Read-only, mostly a view on them."""
    name, dtype, shape, elements, place = reference
    return read_section(data, 0, place.nbytes, dtype, shape, elements, name)
