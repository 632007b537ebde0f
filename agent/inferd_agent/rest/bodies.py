"""Request bodies: read once, bounded in size, in time and in what all connections hold together.

A small body that is already there is taken as it came; any other goes straight into one buffer whose tensor section
begins on a 64-byte boundary. What a body holds is given back when its request has been answered.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

import numpy as np
from aiohttp import web
from aiohttp.streams import StreamReader

from inferd_agent.errors import BodyTooLarge, RequestTimeout
from inferd_agent.rest.call import Call
from inferd_agent.rest.encodings import inflate, parse_content_encoding
from inferd_agent.rest.headers import CONTENT_ENCODING
from inferd_runtime import InvalidRequest, Overloaded

Body = bytes | memoryview

_ALIGN_BYTES = 64
# Unread bodies up to this size are read and thrown away to keep the connection; larger ones end it.
DRAIN_BYTES = 64 << 10
# A compressed body up to this size is inflated on the loop.
_INFLATE_INLINE_BYTES = 4 << 10
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Bodies:
    """Reads the bodies of all connections; `held` is what they hold now."""

    def __init__(self, *, max_body_bytes: int, max_held_bytes: int, timeout_s: float, pool: Executor) -> None:
        self._max_body_bytes = max_body_bytes
        self._max_held_bytes = max_held_bytes
        self._timeout_s = timeout_s
        self._pool = pool
        self.held = 0

    async def read(self, call: Call, header_length: int | None = None) -> Body:
        """The whole body, inflated.

        Raises BodyTooLarge, Overloaded, RequestTimeout, UnsupportedEncoding, InvalidRequest.
        `header_length` is where the tensor section of an uncompressed body begins.
        """
        payload, headers = call.payload, call.message.headers
        encoding = ""
        if CONTENT_ENCODING in headers:
            encoding = parse_content_encoding(headers[CONTENT_ENCODING])
        text = headers.get("Content-Length")
        if text is None:
            body: Body = await self._read_slowly(call, None, 0) if call.message.chunked else b""
        else:
            length = int(text)
            if length > self._max_body_bytes:
                raise BodyTooLarge(f"the body has {length} bytes, at most {self._max_body_bytes} are taken")
            self.hold(call, length)
            if payload.is_eof():
                body = payload.read_nowait(-1)
            else:
                body = await self._read_slowly(call, length, header_length or 0)
        return await self._inflate(call, body, encoding) if encoding else body

    def take(self, call: Call) -> bytes:
        """A small body, not encoded, that is there already."""
        size = call.payload.total_bytes
        if size > self._max_body_bytes:
            raise BodyTooLarge(f"the body has {size} bytes, at most {self._max_body_bytes} are taken")
        self.hold(call, size)
        return call.payload.read_nowait(-1)

    def release(self, call: Call) -> None:
        """The request has been answered; its body is nobody's any more."""
        self.held -= call.held_bytes
        call.held_bytes = 0

    def has_small_rest(self, call: Call) -> bool:
        """Whether the unread rest of a refused request's body is small and sure to come: the connection can go on."""
        headers = call.message.headers
        if call.payload.is_eof():
            return True
        text = headers.get("Content-Length")
        return text is not None and int(text) <= DRAIN_BYTES and "Expect" not in headers

    def hold(self, call: Call, nbytes: int) -> None:
        """Count what a request brought in, until `release`. Raises Overloaded."""
        if self.held + nbytes > self._max_held_bytes:
            raise Overloaded(
                f"{self.held} bytes of request bodies are held, {nbytes} more would pass {self._max_held_bytes}"
            )
        self.held += nbytes
        call.held_bytes += nbytes

    async def _read_slowly(self, call: Call, length: int | None, header_length: int) -> Body:
        """A body that is not there yet, within the time limit."""
        _check_expectation(call)
        call.must_close = True
        try:
            async with asyncio.timeout(self._timeout_s):
                if length is None:
                    body: Body = await self._read_chunked(call)
                else:
                    body = await _read_known(call.payload, length, header_length)
        except TimeoutError:
            raise RequestTimeout(f"the body did not arrive within {self._timeout_s:g} s") from None
        except web.RequestPayloadError as error:
            call.payload.feed_eof()  # nothing more will come: aiohttp is not to wait for the rest
            raise InvalidRequest(f"the body is malformed: {error}") from None
        call.must_close = False
        return body

    async def _read_chunked(self, call: Call) -> Body:
        chunks: list[bytes] = []
        size = 0
        payload = call.payload
        while not payload.at_eof():
            chunk, _ = await payload.readchunk()
            if not chunk:
                continue
            size += len(chunk)
            if size > self._max_body_bytes:
                raise BodyTooLarge(f"the body has more than {self._max_body_bytes} bytes")
            self.hold(call, len(chunk))
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _inflate(self, call: Call, body: Body, encoding: str) -> Body:
        limit = min(self._max_body_bytes, max(self._max_held_bytes - self.held, 0))
        if len(body) <= _INFLATE_INLINE_BYTES:
            whole = inflate(body, encoding, limit)
        else:
            loop = asyncio.get_running_loop()
            whole = await loop.run_in_executor(self._pool, inflate, body, encoding, limit)
        self.hold(call, len(whole))
        return whole


async def _read_known(payload: StreamReader, length: int, header_length: int) -> memoryview:
    """Fill one buffer; the parser sees to it that no more than `length` bytes come."""
    room = np.empty(length + _ALIGN_BYTES, np.uint8)
    start = -(room.ctypes.data + header_length) % _ALIGN_BYTES
    view = room.data[start : start + length]
    at = 0
    while not payload.at_eof():
        chunk, _ = await payload.readchunk()
        view[at : at + len(chunk)] = chunk
        at += len(chunk)
    return view.toreadonly()


def _check_expectation(call: Call) -> None:
    """Tell a caller that waits for leave to send its body that it has it."""
    message = call.message
    expect = message.headers.get("Expect")
    if expect is None or not message.version[1]:
        return
    if expect.lower() != "100-continue":
        raise InvalidRequest(f"Expect {expect[:40]!r} is not known here, only 100-continue")
    transport = call.connection.transport
    if transport is not None:
        transport.write(_CONTINUE)
