"""Shared memory of one place: the inputs of a run, and behind them its outputs.

The parent makes the file in memory and both sides map it; whoever needs more lets it grow. It is sealed against
shrinking, so that a child gone mad cannot take memory away under the parent. One run at a time uses a region.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Sequence

import msgspec
import numpy as np

from inferd_runtime.engines import Array
from inferd_runtime.engines.host.words import DTYPES, Slot
from inferd_runtime.tensor import STRING, datatype_name

# More than this is given back to the system after a run.
KEPT_BYTES = 32 << 20
_LEAST_BYTES = 64 << 10
_ALIGNMENT_BYTES = 64

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[bytes]).decode


def make_region() -> int:
    """The descriptor of a new region, closed on exec."""
    fd = os.memfd_create("inferd-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, _LEAST_BYTES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


class Region:
    """One side's view of a region. Arrays taken from it keep the view alive and lie in memory both sides write."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)

    def put(self, arrays: Sequence[Array], *, behind: Sequence[Slot] = ()) -> tuple[Slot, ...]:
        """Copy arrays in, from the start or behind other tensors; strings become one packed block."""
        blocks = [_packed(array) for array in arrays]
        at = max((_aligned(slot.at + slot.nbytes) for slot in behind), default=0)
        slots = []
        for array, block in zip(arrays, blocks, strict=True):
            slots.append(Slot(datatype_name(array.dtype), array.shape, at, block.nbytes))
            at = _aligned(at + block.nbytes)
        self._reach(at)
        for slot, block in zip(slots, blocks, strict=True):
            np.ndarray(block.shape, block.dtype, self._map, slot.at)[...] = block
        return tuple(slots)

    def get(self, slot: Slot) -> Array:
        """A read-only view of a tensor, or its strings. Raises ValueError where the slot makes no sense."""
        dtype, count = DTYPES.get(slot.datatype), math.prod(slot.shape)
        is_text = dtype == STRING
        if dtype is None or min(slot.at, slot.nbytes, *slot.shape) < 0:
            raise ValueError(f"no such tensor: {slot}")
        if not is_text and count * dtype.itemsize != slot.nbytes:
            raise ValueError(f"a tensor with the wrong size: {slot}")
        self._reach(slot.at + slot.nbytes, may_grow=False)
        if is_text:
            return _unpacked(self._map[slot.at : slot.at + slot.nbytes], count).reshape(slot.shape)
        view: Array = np.ndarray(slot.shape, dtype, self._map, slot.at)
        view.flags.writeable = False
        return view

    def trim(self) -> None:
        """Give back what a large run took. Nobody may look at its tensors any more."""
        if len(self._map) > KEPT_BYTES:
            self._map.madvise(mmap.MADV_REMOVE, KEPT_BYTES, len(self._map) - KEPT_BYTES)

    def _reach(self, size: int, *, may_grow: bool = True) -> None:
        """See at least `size` bytes."""
        if size <= len(self._map):
            return
        there = os.fstat(self._fd).st_size
        if size > there:
            if not may_grow:
                raise ValueError(f"{size} bytes of shared memory, where there are {there}")
            there = 1 << (size - 1).bit_length()  # pages that nobody touches cost nothing
            os.ftruncate(self._fd, there)
        self._map = mmap.mmap(self._fd, there)  # the old one goes with the last array on it


def _packed(array: Array) -> Array:
    if array.dtype != STRING:
        return array
    return np.frombuffer(_encode(array.reshape(-1).tolist()), np.uint8)


def _unpacked(block: bytes, count: int) -> Array:
    try:
        items = _decode(block)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    if len(items) != count:
        raise ValueError(f"{len(items)} strings, where there should be {count}")
    strings = np.empty(count, STRING)
    strings[:] = items
    return strings


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
