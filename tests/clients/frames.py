"""HTTP/2 frames by hand, for saying to a gRPC listener what no proper client would."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.e2e.raw import connected

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 1, 4
SERVICE = "/inference.GRPCInferenceService/"
Fields = Sequence[tuple[str, str | bytes]]


class Frame(NamedTuple):
    """One frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def block(fields: Fields) -> bytes:
    """A header block of plain literals."""
    parts = []
    for name, value in fields:
        parts.append(b"\0" + _text(name.encode()) + _text(value.encode() if isinstance(value, str) else value))
    return b"".join(parts)


def call(stream: int, path: str | bytes, more: Fields = (), *, flags: int = END_HEADERS) -> bytes:
    """The head of a gRPC call, without a message. `path` is a method's name, or a whole path in bytes."""
    whole = path if isinstance(path, bytes) else f"{SERVICE}{path}".encode()
    fields = ((":method", "POST"), (":scheme", "http"), (":path", whole), (":authority", "localhost"),
              ("te", "trailers"), ("content-type", "application/grpc"), *more)  # fmt: skip
    return frame(HEADERS, flags, stream, block(fields))


def message(stream: int, body: bytes, *, flags: int = END_STREAM) -> bytes:
    """A gRPC message in one DATA frame."""
    return frame(DATA, flags, stream, struct.pack(">BI", 0, len(body)) + body)


def reset(stream: int, code: int = 8) -> bytes:
    """RST_STREAM; 8 is CANCEL."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


class Line:
    """A connection whose handshake is done. It remembers what came, and says nothing by itself but the answers to
    SETTINGS and PING."""

    def __init__(self, sock: socket.socket, window: int) -> None:
        self._sock = sock
        self._rest = b""
        self.frames: list[Frame] = []
        settings = struct.pack(">HIHI", HEADER_TABLE_SIZE, 0, INITIAL_WINDOW_SIZE, window)
        self.send(PREFACE, frame(SETTINGS, 0, 0, settings))

    def send(self, *data: bytes) -> None:
        """Write, unless the daemon hung up; what it said before can still be read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(b"".join(data))

    def read(self) -> bool:
        """Take what comes next; False once the daemon has hung up."""
        try:
            data = self._sock.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            return False
        self._rest += data
        while len(self._rest) >= 9:
            size = int.from_bytes(self._rest[:3], "big")
            if len(self._rest) < 9 + size:
                break
            kind, flags, stream = struct.unpack(">BBI", self._rest[3:9])
            self._take(Frame(kind, flags, stream, self._rest[9 : 9 + size]))
            self._rest = self._rest[9 + size :]
        return True

    def _take(self, came: Frame) -> None:
        self.frames.append(came)
        if came.kind in (SETTINGS, PING) and not came.flags & ACK:
            self.send(frame(came.kind, ACK, 0, came.payload if came.kind == PING else b""))

    def status(self, stream: int) -> int | None:
        """The grpc-status that ends a stream; None where it was reset, or the connection ended first."""
        while True:
            for each in self.frames:
                if each.stream == stream and each.kind == HEADERS and b"grpc-status" in each.payload:
                    return _status_in(each.payload)
                if each.stream == stream and each.kind == RST_STREAM:
                    return None
            if not self.read():
                return None

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Read on until it is so; the test fails when the daemon hangs up before, or says nothing for long."""
        while not condition():
            assert self.read(), "the daemon hung up"

    def settled(self) -> Line:
        """Acknowledge the daemon's settings, before which its limits do not hold."""
        self.read_until(lambda: any(each.kind == SETTINGS and not each.flags & ACK for each in self.frames))
        return self

    def shut(self) -> None:
        """Close our side of the connection, if the daemon has not closed it as a whole."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def until_closed(self) -> list[Frame]:
        """All that comes until the daemon hangs up."""
        while self.read():
            pass
        return self.frames


def _status_in(payload: bytes) -> int:
    """The daemon was told to keep no table, so names and values are literal."""
    at = payload.index(b"grpc-status") + len(b"grpc-status")
    return int(payload[at + 1 : at + 1 + (payload[at] & 0x7F)])


def _text(data: bytes) -> bytes:
    """A string of a header block: its length, with a prefix of seven bits, and its bytes."""
    size = len(data)
    if size < 0x7F:
        return bytes([size]) + data
    head, left = bytearray([0x7F]), size - 0x7F
    while left > 0x7F:
        head.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*head, left]) + data


@contextlib.contextmanager
def dialled(
    target: str | tuple[str, int], ca: Path | None = None, *, window: int = 65535, timeout_s: float = 30
) -> Iterator[Line]:
    """A connection with its handshake done; `window` is what the daemon may send on a stream unasked."""
    with connected(target, ca, timeout_s) as sock:
        yield Line(sock, window)
