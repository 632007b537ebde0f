"""What goes back on a connection: status, headers and body buffers, written as bytes.

aiohttp asks a response for `prepare`, `write_eof` and `keep_alive` only; `Answer` is just that, because building and
serialising a header map for each answer costs more than a small model. Large buffers are written as views, not copied.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from inferd.protocol.messages import ErrorBody, encode

if TYPE_CHECKING:
    from inferd_agent.rest.call import Call

Buffers = Sequence[bytes | memoryview]
Spell = Callable[[int, str], bytes]  # status and text of a refusal into its body

JSON = b"Content-Type: application/json\r\n"
OCTETS = b"Content-Type: application/octet-stream\r\n"

# Up to this many bytes go out as one write; beyond it every buffer is written by itself.
_JOIN_BYTES = 64 << 10
# With more than this unsent, the next answer waits for the reader.
UNSENT_BYTES = 64 << 10
_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_KEEP_ALIVE_1_0 = b"Connection: keep-alive\r\n"
_CLOSE = b"Connection: close\r\n"


class _Clock:
    """The Date header, spelled once a second."""

    second = 0
    line = b""


def date_line() -> bytes:
    """`Date: ...`, with its line end."""
    second = int(time.time())
    if second != _Clock.second:
        _Clock.line = b"Date: " + formatdate(second, usegmt=True).encode() + b"\r\n"
        _Clock.second = second
    return _Clock.line


class Answer:
    """One response. `fields` are complete header lines; lengths, ids and connection headers are added in writing.

    `must_close` ends the connection after this answer. `is_bodiless` (for HEAD) tells the length and sends no body.
    """

    __slots__ = ("_call", "buffers", "fields", "is_bodiless", "keep_alive", "must_close", "status")

    def __init__(self, status: int, fields: bytes, buffers: Buffers, *, must_close: bool = False) -> None:
        self.status = status
        self.fields = fields
        self.buffers = buffers
        self.must_close = must_close
        self.is_bodiless = False
        self.keep_alive = False
        self._call: Call | None = None

    async def prepare(self, call: Call) -> None:
        """Called by aiohttp with the request; nothing is sent yet."""
        self._call = call

    async def write_eof(self) -> None:
        """Called by aiohttp: send everything. Raises ConnectionError when nobody is there."""
        call = self._call
        if call is None:
            return
        transport = call.connection.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the caller left")
        self.write(call, transport)
        if transport.get_write_buffer_size() > UNSENT_BYTES:
            await _flush(call)
        elif self.keep_alive:
            call.connection.has_answered()

    def write(self, call: Call, transport: asyncio.Transport) -> None:
        """Send everything, without waiting for the reader."""
        buffers = self.buffers
        size = sum([len(each) for each in buffers])
        head = self._head(call, size)
        if self.is_bodiless or not size:
            transport.write(head)
        elif size <= _JOIN_BYTES:
            transport.write(b"".join((head, *buffers)))
        else:
            transport.write(head + bytes(buffers[0]) if len(buffers[0]) <= _JOIN_BYTES else head)
            for each in buffers[1:] if len(buffers[0]) <= _JOIN_BYTES else buffers:
                transport.write(each)

    def _head(self, call: Call, size: int) -> bytes:
        connection = _CLOSE
        if self.keep_alive:
            connection = b"" if call.message.version[1] else _KEEP_ALIVE_1_0
        length = b"" if self.status == HTTPStatus.NO_CONTENT else b"Content-Length: %d\r\n" % size
        return b"%b%b%bX-Request-Id: %b\r\n%b%b\r\n" % (
            _STATUS_LINES[self.status], self.fields, length, call.id.encode(), connection, date_line(),
        )  # fmt: skip


async def _flush(call: Call) -> None:
    """Wait until the reader has taken most of it, or cut it off."""
    try:
        async with asyncio.timeout(call.connection.write_timeout_s):
            await call.writer.drain()
    except TimeoutError:
        transport = call.connection.transport
        if transport is not None:
            transport.abort()
        raise ConnectionResetError("the caller does not read its answer") from None


def json_answer(body: bytes, status: int = 200) -> Answer:
    """A JSON body that is ready to send."""
    return Answer(status, JSON, (body,))


def plain_error(status: int, text: str) -> bytes:
    """The body of a refusal as the protocol has it."""
    return encode(ErrorBody(text))


def error_answer(
    status: int,
    text: str,
    *,
    retry_after_s: float | None = None,
    allow: str = "",
    must_close: bool = False,
    spell: Spell = plain_error,
) -> Answer:
    """The one form of every refusal; `spell` writes its body."""
    fields = JSON
    if status == HTTPStatus.UNAUTHORIZED:
        fields += b'WWW-Authenticate: Bearer realm="inferd"\r\n'
    if retry_after_s is not None:
        fields += b"Retry-After: %d\r\n" % max(1, math.ceil(min(retry_after_s, 86_400)))
    if allow:
        fields += b"Allow: " + allow.encode() + b"\r\n"
    if status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        fields += b"Accept-Encoding: gzip, deflate, identity\r\n"
    text = text.encode("utf-8", "replace").decode()
    return Answer(status, fields, (spell(status, text),), must_close=must_close)


def bare_error(status: int, text: str) -> bytes:
    """A whole response that closes, for connections that have no request to answer."""
    body = encode(ErrorBody(text))
    retry = b"Retry-After: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else b""
    return b"%b%b%b%b%bContent-Length: %d\r\n\r\n%b" % (
        _STATUS_LINES[status], JSON, retry, _CLOSE, date_line(), len(body), body,
    )  # fmt: skip
