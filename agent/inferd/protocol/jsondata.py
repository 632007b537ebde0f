"""Tensors as JSON arrays, in both directions, and the JSON dialect that real clients speak.

Input data may be flat or nested as the shape says; output data is always flat. Bare `NaN`, `Infinity` and `-Infinity`
are read and written for FP32 and FP64, as other implementations do, although JSON has no such words.
"""

from __future__ import annotations

import binascii
import json
import re
from functools import cache
from types import GenericAlias
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from inferd.protocol.datatypes import BINARY_ONLY, BYTES, DATATYPES, Array
from inferd.protocol.errors import ProtocolError

MAX_RANK = 32
T = TypeVar("T")


class _Special(msgspec.Struct, frozen=True):
    """What stands for a bare NaN or Infinity after `_spell_specials`; numpy reads it through `__float__`."""

    value: Literal["NaN", "Infinity", "-Infinity"] = msgspec.field(name="$")

    def __float__(self) -> float:
        return float(self.value)


class Base64(msgspec.Struct, frozen=True):
    """Bytes that are no text, as V1 and TensorFlow Serving write them."""

    b64: str


def _bounded(bits: int, signed: bool) -> Any:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return Annotated[int, Meta(ge=low, le=high)]


# 64-bit integers are bounded by numpy: msgspec has no constraint beyond 2**63 - 1.
_ELEMENTS: dict[str, Any] = {
    "BOOL": bool,
    "UINT8": _bounded(8, False), "UINT16": _bounded(16, False), "UINT32": _bounded(32, False), "UINT64": int,
    "INT8": _bounded(8, True), "INT16": _bounded(16, True), "INT32": _bounded(32, True), "INT64": int,
    "FP32": float, "FP64": float, "BYTES": str,
}  # fmt: skip
_BRACKETS = re.compile(rb"[\s\[]*")
# A string, even an unterminated one, or a special. Possessive throughout, so that it is linear on any input.
_SPECIALS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|NaN|-?Infinity', re.DOTALL)
_JSON_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError)


@cache  # at most one decoder per datatype, depth <= MAX_RANK and dialect
def _decoder(datatype: str, depth: int, has_specials: bool, has_base64: bool = False) -> msgspec.json.Decoder[Any]:
    kind: Any = _ELEMENTS[datatype] | Base64 if has_base64 else _ELEMENTS[datatype]
    if has_specials and kind is float:
        kind = float | _Special
    for _ in range(depth):
        kind = GenericAlias(list, (kind,))
    return msgspec.json.Decoder(kind)


def decode_header(decoder: msgspec.json.Decoder[T], text: bytes | memoryview, what: str) -> tuple[T, bool]:
    """The decoded text, and whether it held bare specials, which data decoded from it then may hold in its place."""
    try:
        return decoder.decode(text), False
    except msgspec.ValidationError as error:
        raise ProtocolError(f"{what}: {error}") from None
    except _JSON_ERRORS as error:
        plain = bytes(text)
        if b"NaN" not in plain and b"Infinity" not in plain:
            raise ProtocolError(f"{what}: {_reason(error)}") from None
    try:
        return decoder.decode(_SPECIALS.sub(_spell_special, plain)), True
    except _JSON_ERRORS as error:
        raise ProtocolError(f"{what}: {_reason(error)}") from None


def _spell_special(match: re.Match[bytes]) -> bytes:
    found: bytes = match[0]
    return found if found[0] == 0x22 else b'{"$":"%b"}' % found


def _reason(error: BaseException) -> str:
    return "JSON is nested too deep" if isinstance(error, RecursionError) else str(error)


def decode_data(
    raw: msgspec.Raw, datatype: str, shape: tuple[int, ...], count: int, name: str, has_specials: bool
) -> Array:
    """The tensor that the JSON array `raw` holds; read-only."""
    if datatype in BINARY_ONLY:
        raise ProtocolError(f"tensor '{name}': {datatype} has no JSON form, use binary data")
    text = memoryview(raw)
    if count > len(text):
        raise ProtocolError(f"tensor '{name}': shape {list(shape)} has {count} elements, the data cannot hold so many")
    match = _BRACKETS.match(text)
    depth = match[0].count(b"[") if match else 0
    if depth == 0:
        raise ProtocolError(f"tensor '{name}': data must be an array")
    if depth > max(1, len(shape)):
        raise ProtocolError(f"tensor '{name}': data is nested {depth} deep, its shape is {list(shape)}")
    values = _decode_values(_decoder(datatype, depth, has_specials), raw, name)
    array = _flat(values, datatype, shape, count, name) if depth == 1 else _nested(values, datatype, shape, name)
    array.flags.writeable = False
    return array


def decode_nested(raw: msgspec.Raw, datatype: str, name: str, has_specials: bool) -> Array:
    """The tensor that nested JSON arrays hold, its shape being the nesting; bytes may be `Base64`, and FP16 and BF16
    are numbers, too. Read-only."""
    match = _BRACKETS.match(memoryview(raw))
    depth = match[0].count(b"[") if match else 0
    if depth > MAX_RANK:
        raise ProtocolError(f"tensor '{name}': data is nested {depth} deep, at most {MAX_RANK} are taken")
    wire = "FP32" if datatype in BINARY_ONLY else datatype
    values = _decode_values(_decoder(wire, depth, has_specials, datatype == "BYTES"), raw, name)
    try:
        array = _unpack_base64(values, name) if datatype == "BYTES" else _to_array(values, wire, name, None)
        with np.errstate(over="raise"):
            array = array.astype(DATATYPES[datatype], copy=False)
    except FloatingPointError:
        raise ProtocolError(f"tensor '{name}': a value is out of range for {datatype}") from None
    array.flags.writeable = False
    return array


def _unpack_base64(values: Any, name: str) -> Array:
    """Nested text and `Base64` as an array of bytes."""
    try:
        texts = np.array(values, BYTES)
        flat = np.empty(texts.size, BYTES)
        flat[:] = [
            each.encode() if isinstance(each, str) else binascii.a2b_base64(each.b64, strict_mode=True)
            for each in texts.ravel().tolist()
        ]
    except binascii.Error as error:
        raise ProtocolError(f"tensor '{name}': b64 is not base64: {error}") from None
    except (ValueError, AttributeError):
        raise ProtocolError(f"tensor '{name}': data is nested unevenly") from None
    return flat.reshape(texts.shape)


def _decode_values(decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw, name: str) -> list[Any]:
    try:
        values: list[Any] = decoder.decode(raw)
    except _JSON_ERRORS as error:
        raise ProtocolError(f"tensor '{name}' data: {_reason(error)}") from None
    return values


def _flat(values: list[Any], datatype: str, shape: tuple[int, ...], count: int, name: str) -> Array:
    if len(values) != count:
        raise ProtocolError(f"tensor '{name}': shape {list(shape)} has {count} elements, data has {len(values)}")
    return _to_array(values, datatype, name, (count,)).reshape(shape)


def _nested(values: list[Any], datatype: str, shape: tuple[int, ...], name: str) -> Array:
    array = _to_array(values, datatype, name, None)
    if array.size == 0 and 0 in shape:
        return array.reshape(shape)
    if array.shape != shape:
        raise ProtocolError(f"tensor '{name}': data is nested as {list(array.shape)}, its shape is {list(shape)}")
    return array


def _to_array(values: Any, datatype: str, name: str, shape: tuple[int, ...] | None) -> Array:
    try:
        if datatype != "BYTES":
            with np.errstate(over="raise"):
                return np.array(values, DATATYPES[datatype])
        texts = np.array(values, BYTES)
        flat = np.empty(texts.size, BYTES)
        flat[:] = [text.encode() for text in texts.ravel().tolist()]
        return flat.reshape(texts.shape if shape is None else shape)
    except (OverflowError, FloatingPointError):
        raise ProtocolError(f"tensor '{name}': a value is out of range for {datatype}") from None
    except (ValueError, AttributeError):
        raise ProtocolError(f"tensor '{name}': data is nested unevenly") from None


def encode_data(array: Array, datatype: str, name: str) -> list[Any] | msgspec.Raw:
    """The flat JSON array of a tensor, ready for a msgspec encoder."""
    if datatype in BINARY_ONLY:
        raise ProtocolError(f"tensor '{name}': {datatype} has no JSON form, use binary data")
    values: list[Any] = array.ravel().tolist()
    if datatype == "BYTES":
        try:
            return [value if isinstance(value, str) else value.decode() for value in values]
        except UnicodeDecodeError:
            raise ProtocolError(f"tensor '{name}' holds bytes that are not UTF-8, use binary data") from None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return msgspec.Raw(json.dumps(values, separators=(",", ":")).encode())
    return values
