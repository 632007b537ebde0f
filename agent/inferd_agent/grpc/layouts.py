"""Where the fields of a ModelInferRequest lie, found by a walk over the message, or known from one that came before.

Clients repeat one request with other data: all but id and raw tensors is the same bytes at the same places. Such a
message is compared with those bytes, and not walked over again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from inferd.protocol import Limits, ProtocolError

Span = tuple[int, int]
T = TypeVar("T")

_ID, _INPUT, _OUTPUT, _RAW = 3, 5, 6, 7
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SKIPPED = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10
# What is remembered: at most so many, of no more bytes each.
_KEPT = 512
_KEPT_BYTES = 1024
_MODEL_TAG = 0x0A


class Parts(NamedTuple):
    """A message taken apart: where the id and the raw tensors lie, and all other fields as they came."""

    head: bytes
    id: Span
    sections: tuple[Span, ...]


class Layout(NamedTuple, Generic[T]):
    """The parts of all messages that have `fixed` bytes at the same places; `meaning` is what their heads mean."""

    parts: Parts
    meaning: T
    fixed: tuple[tuple[int, bytes], ...]


class Layouts(Generic[T]):
    """The layouts of messages that came before, within bounds. For one thread at a time, or several: nothing here is
    changed once it is in, and what one thread loses another finds anew."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes], Layout[T]] = {}

    def recall(self, message: bytes) -> Layout[T] | None:
        """The layout of this very message, None where it is not known."""
        layout = self._known.get(_key(message))
        if layout is not None:
            for at, octets in layout.fixed:
                if not message.startswith(octets, at):
                    return None
        return layout

    def remember(self, message: bytes, parts: Parts, meaning: T) -> None:
        """Know messages like this one from now on, where that takes little."""
        if len(parts.head) > _KEPT_BYTES or len(parts.sections) > _KEPT_BYTES // 8:
            return
        if len(self._known) >= _KEPT:
            self._known.clear()
        fixed = tuple((begin, message[begin:end]) for begin, end in _between(message, parts))
        self._known[_key(message)] = Layout(parts, meaning, fixed)


def _key(message: bytes) -> tuple[int, bytes]:
    """What messages are told apart by before they are compared: length, and the model's name, with which most begin."""
    if len(message) > 1 and message[0] == _MODEL_TAG:
        return len(message), message[2 : 2 + message[1]]
    return len(message), b""


def _between(message: bytes, parts: Parts) -> Iterator[Span]:
    """What lies between id and tensors."""
    at = 0
    for begin, end in sorted([parts.id, *parts.sections]):
        if at < begin:
            yield at, begin
        at = max(at, end)
    if at < len(message):
        yield at, len(message)


def take_apart(message: bytes, limits: Limits) -> Parts:
    """Walk over the outermost fields. What protobuf is to read is bounded, since it takes many times its size."""
    whole = memoryview(message)
    others: list[memoryview] = []
    sections: list[Span] = []
    request_id = (0, 0)
    at, end, other_bytes, tensors = 0, len(message), 0, 0
    while at < end:
        start = at
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _BYTES:
            size, at = _varint(message, at)
            begin, at = at, at + size
        elif kind == _VARINT:
            _, at = _varint(message, at)
        elif kind in _SKIPPED:
            at += _SKIPPED[kind]
        else:
            raise ProtocolError(f"this is no ModelInferRequest: its field {number} has the wire type {kind}")
        if at > end:
            raise ProtocolError("the message is cut off")
        if kind == _BYTES and number in (_INPUT, _OUTPUT, _RAW):
            tensors += 1
        if kind == _BYTES and number == _RAW:
            sections.append((begin, at))
        elif kind == _BYTES and number == _ID:
            request_id = (begin, at)
        else:
            others.append(whole[start:at])
            other_bytes += at - start
    if tensors > 3 * limits.max_tensors:
        raise ProtocolError(f"at most {limits.max_tensors} inputs and as many outputs are taken")
    if other_bytes > limits.max_json_bytes:
        raise ProtocolError(
            f"{other_bytes} bytes beside raw tensors, at most {limits.max_json_bytes} are taken: use raw_input_contents"
        )
    return Parts(b"".join(others), request_id, tuple(sections))


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and the place behind it."""
    try:
        octet = message[at]
        if octet < 0x80:
            return octet, at + 1
        value = 0
        for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
            octet = message[at]
            value |= (octet & 0x7F) << shift
            at += 1
            if octet < 0x80:
                return value, at
    except IndexError:
        raise ProtocolError("the message is cut off") from None
    raise ProtocolError("the message holds a number of more than 10 bytes")
