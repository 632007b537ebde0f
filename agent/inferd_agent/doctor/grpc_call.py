"""The one gRPC call that the doctor makes, ServerReady, by frames of its own: it needs neither token nor library.

What comes back is a stranger's until it is an answer, and so is bounded in bytes and time.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

_MOST_BYTES = 64 << 10
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _END_HEADERS = 1, 4
_FIELDS = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/inference.GRPCInferenceService/ServerReady"),
    (b":authority", b"localhost"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)
# A message of no bytes, and the two that there may be: a field that is false is left out.
_EMPTY, _READY = b"\0\0\0\0\0", b"\0\0\0\0\2\x08\x01"


def is_ready(sock: socket.socket, within_s: float) -> bool:
    """Ask over a connection. Raises OSError, and ValueError where no answer comes within the time."""
    block = b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in _FIELDS)
    sock.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, block)
        + _frame(_DATA, _END_STREAM, 1, _EMPTY)
    )
    message = b""
    for kind, flags, stream, payload in _frames(sock, time.monotonic() + within_s):
        if kind in (_RST_STREAM, _GOAWAY):
            break
        if kind == _DATA and stream == 1:
            message += payload
        if stream == 1 and flags & _END_STREAM:
            break
    if message not in (_EMPTY, _READY):
        raise ValueError("it does not answer ServerReady")
    return message == _READY


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _frames(sock: socket.socket, end_s: float) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of what comes, until it ends, takes too long or is too much."""
    data, total = b"", 0
    while total < _MOST_BYTES and (left_s := end_s - time.monotonic()) > 0:
        sock.settimeout(left_s)
        if not (came := sock.recv(4096)):
            break
        total += len(came)
        data += came
        while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3], "big")):
            kind, flags, stream = struct.unpack(">BBI", data[3:9])
            yield kind, flags, stream, data[9:end]
            data = data[end:]
