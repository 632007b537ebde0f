"""One HTTP/1.1 connection over a Unix or TCP socket, with or without TLS, for one caller at a time.

Writes a request in as few sends as its size allows and reads the body straight into one buffer of its length. Every
wait counts against the call's deadline. A connection that failed in any way is closed and never used again.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Sequence
from typing import NoReturn

from inferd.address import Address, Verifier
from inferd.calls import Reply
from inferd.errors import BadResponse, ConnectionFailed, InferdError
from inferd.retry import Deadline

MAX_HEAD_BYTES = 64 << 10
MAX_BODY_BYTES = 1 << 31
# Bodies up to this size are joined with their header into one send.
JOIN_BYTES = 64 << 10
SEND_BYTES = 1 << 20
# What may pass while a daemon boots.
NOT_THERE = (ConnectionRefusedError, FileNotFoundError, BlockingIOError)


class Connection:
    """A connected socket with its unread bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._unread = b""
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.calls = 0
        self.is_reusable = True

    def close(self) -> None:
        """Idempotent."""
        self.is_reusable = False
        self._sock.close()

    def is_idle(self) -> bool:
        """Whether the peer has neither closed nor said anything unasked since the last answer."""
        return self.is_reusable and not self._unread and not self._poll.poll(0)

    def exchange(self, head: bytes, buffers: Sequence[bytes | memoryview], deadline: Deadline) -> Reply:
        """Send a request and read its answer."""
        is_reused = self.calls > 0
        self.calls += 1
        try:
            refusal = self._send(head, buffers, deadline)
            return self._receive(deadline, is_reused, refusal)
        except TimeoutError:
            self.close()
            raise deadline.exceeded() from None
        except OSError as error:
            self.close()
            raise ConnectionFailed(f"the connection broke: {error}") from error
        except BaseException:
            self.close()
            raise

    def _send(self, head: bytes, buffers: Sequence[bytes | memoryview], deadline: Deadline) -> OSError | None:
        """Send all; a peer that stops reading may have answered already, so its reset is handed back, not raised."""
        if sum(map(len, buffers)) <= JOIN_BYTES:
            pieces: Sequence[bytes | memoryview] = (b"".join((head, *buffers)),)
        else:
            pieces = (head + bytes(buffers[0]), *buffers[1:]) if len(buffers[0]) <= JOIN_BYTES else (head, *buffers)
        try:
            for piece in pieces:
                self._send_piece(memoryview(piece), deadline)
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            return error
        return None

    def _send_piece(self, piece: memoryview, deadline: Deadline) -> None:
        at = 0
        while at < len(piece):
            self._sock.settimeout(deadline.left_s())
            at += self._sock.send(piece[at : at + SEND_BYTES])

    def _receive(self, deadline: Deadline, is_reused: bool, refusal: OSError | None) -> Reply:
        while True:
            head = self._read_head(deadline, is_reused, refusal)
            status, headers = parse_head(head)
            if status >= 200:
                break
        body = self._read_body(status, headers, deadline)
        tokens = headers.get("connection", "").lower()
        if refusal is not None or "close" in tokens or head.startswith(b"HTTP/1.0"):
            self.close()
        return Reply(status, headers, body)

    def _read_head(self, deadline: Deadline, is_reused: bool, refusal: OSError | None) -> bytes:
        data = self._unread
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > MAX_HEAD_BYTES:
                raise BadResponse("the answer's header is too long")
            try:
                piece = self._recv(deadline)
            except (ConnectionError, ssl.SSLError) as error:
                refusal, piece = error, b""
            if not piece:
                self.close()
                _raise_closed(is_stale=is_reused and not data, cause=refusal)
            data += piece
        self._unread = data[end + 4 :]
        return data[:end]

    def _recv(self, deadline: Deadline) -> bytes:
        self._sock.settimeout(deadline.left_s())
        return self._sock.recv(JOIN_BYTES)

    def _read_body(self, status: int, headers: dict[str, str], deadline: Deadline) -> bytearray | bytes:
        if status in (204, 304):
            return b""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._read_chunks(deadline)
        text = headers.get("content-length")
        if text is None:
            raise BadResponse("the answer tells no length", status=status)
        if not (text.isascii() and text.isdigit()) or len(text) > 12 or int(text) > MAX_BODY_BYTES:
            raise BadResponse(f"the answer's length is '{text[:40]}'", status=status)
        return self._read_exactly(int(text), deadline)

    def _read_exactly(self, size: int, deadline: Deadline) -> bytes | bytearray:
        unread = self._unread
        if len(unread) >= size:
            self._unread = unread[size:]
            return unread[:size] if len(unread) > size else unread
        body = bytearray(size)
        at = len(unread)
        body[:at] = unread
        self._unread = b""
        view = memoryview(body)
        while at < size:
            self._sock.settimeout(deadline.left_s())
            count = self._sock.recv_into(view[at:])
            if not count:
                raise ConnectionFailed(f"the connection closed after {at} of {size} bytes of the answer")
            at += count
        return body

    def _read_chunks(self, deadline: Deadline) -> bytes:
        chunks: list[bytes | bytearray] = []
        total = 0
        while True:
            size_text = self._read_line(deadline).split(b";")[0].strip()
            try:
                size = int(size_text, 16)
            except ValueError:
                raise BadResponse("the answer's chunks are malformed") from None
            total += size
            if size < 0 or total > MAX_BODY_BYTES:
                raise BadResponse("the answer is too long")
            if size == 0:
                break
            chunks.append(self._read_exactly(size, deadline))
            self._read_line(deadline)
        while self._read_line(deadline):  # trailers
            pass
        return b"".join(chunks)

    def _read_line(self, deadline: Deadline) -> bytes:
        while (end := self._unread.find(b"\r\n")) < 0:
            if len(self._unread) > MAX_HEAD_BYTES:
                raise BadResponse("the answer's chunks are malformed")
            piece = self._recv(deadline)
            if not piece:
                raise ConnectionFailed("the connection closed within the answer")
            self._unread += piece
        line, self._unread = self._unread[:end], self._unread[end + 2 :]
        return line


def _raise_closed(*, is_stale: bool, cause: OSError | None) -> NoReturn:
    reason = f": {cause}" if cause else ""
    raise ConnectionFailed(f"the connection closed without an answer{reason}", is_stale=is_stale) from cause


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers (lower-case names, repeated ones joined) of an answer; raises BadResponse."""
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise BadResponse(f"not an HTTP answer: '{lines[0][:40]}'")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadResponse(f"not an HTTP header: '{line[:40]}'")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return int(rest[:3]), headers


def connect(address: Address, trust: Verifier, deadline: Deadline) -> Connection:
    """A new connection; raises ConnectionFailed (`is_unsent` where waiting may help), TLSError or DeadlineExceeded."""
    sock = _connect_socket(address, deadline)
    try:
        if address.server_name is not None:
            sock.settimeout(deadline.left_s())
            sock = trust.context(deadline.left_s()).wrap_socket(sock, server_hostname=address.server_name)
        return Connection(sock)
    except TimeoutError:
        sock.close()
        raise deadline.exceeded() from None
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        sock.close()
        raise ConnectionFailed(f"{address.url} closed the connection: {error}", is_unsent=True) from error
    except ssl.SSLError as error:
        sock.close()
        raise trust.refusal(address, error) from error
    except OSError as error:
        sock.close()
        raise ConnectionFailed(f"{address.url} closed the connection: {error}", is_unsent=True) from error
    except InferdError:
        sock.close()
        raise


def _connect_socket(address: Address, deadline: Deadline) -> socket.socket:
    try:
        if address.path is None:
            sock = socket.create_connection((address.host, address.port), deadline.left_s())
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(deadline.left_s())
            sock.connect(address.path)
        except BaseException:
            sock.close()
            raise
        return sock
    except TimeoutError:
        raise deadline.exceeded() from None
    except OSError as error:
        is_unsent = isinstance(error, NOT_THERE)
        raise ConnectionFailed(
            f"cannot connect to {address.url}: {error.strerror or error}", is_unsent=is_unsent
        ) from error
