"""The asyncio way to one daemon: requests over connections that aiohttp keeps, and every error one of ours.

aiohttp's own connector for Unix sockets speaks no TLS, so there is one here that does; another is for a device of which
several addresses are known. Files are read off the loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, AbstractStreamWriter, ResolveResult
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.tracing import Trace
from yarl import URL

from inferd.address import Address, Verifier
from inferd.calls import Call, Reply
from inferd.connection import JOIN_BYTES, NOT_THERE, SEND_BYTES
from inferd.errors import BadResponse, ConnectionFailed, InferdError
from inferd.retry import Deadline
from inferd.wire import body_headers, fixed_headers

_SKIP = ("User-Agent", "Accept", "Content-Type")


class LentSocket(socket.socket):
    """A socket for an event loop to use, which never closes a descriptor that is not its own any more.

    Where the peer resets a connection at once, uvloop closes the descriptor and leaves its number with the object,
    which would close whatever has that number by the time it is collected.
    """

    def __init__(self, family: int, kind: int, proto: int = 0) -> None:
        super().__init__(family, kind, proto)
        self._inode = os.fstat(self.fileno()).st_ino

    def __del__(self) -> None:
        if self.fileno() >= 0 and not self._is_own():
            self.detach()
        super().__del__()  # type: ignore[misc]  # typeshed does not know it

    def _is_own(self) -> bool:
        try:
            return os.fstat(self.fileno()).st_ino == self._inode
        except OSError:
            return False


class TCPConnector(aiohttp.TCPConnector):
    """aiohttp's, whose sockets harm nobody."""

    def __init__(self, **options: Any) -> None:
        super().__init__(socket_factory=lambda found: LentSocket(*found[:3]), **options)


class UnixTLSConnector(aiohttp.UnixConnector):
    """aiohttp's Unix connector, with TLS inside the socket when `trust` is given."""

    def __init__(self, path: str, trust: Verifier | None, server_name: str | None, limit: int) -> None:
        super().__init__(path, limit=limit)
        self._trust = trust
        self._server_name = server_name

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  aiohttp's own signature; the call's total deadline holds
    ) -> ResponseHandler:
        sock = LentSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await self._loop.sock_connect(sock, self.path)
            context = await asyncio.to_thread(self._trust.context) if self._trust is not None else None
            _, handler = await self._loop.create_unix_connection(
                self._factory, sock=sock, ssl=context, server_hostname=self._server_name
            )
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise UnixClientConnectorError(self.path, req.connection_key, error) from error
            raise
        return handler


class _Buffers(aiohttp.Payload):
    """A large body sent piece by piece, without joining it first."""

    def __init__(self, buffers: Sequence[bytes | memoryview]) -> None:
        super().__init__(buffers, content_type="application/octet-stream")
        self._size = sum(map(len, buffers))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        for buffer in self._value:
            view = memoryview(buffer)
            for at in range(0, len(view), SEND_BYTES):
                await writer.write(view[at : at + SEND_BYTES])


class DeviceConnector(TCPConnector):
    """To one device at any of its `addresses`, which may change. `connect_s`: for TCP and TLS of one connection.

    Puts no limit on connections: closing a connector that has one cancels whoever waits for a connection.
    """

    def __init__(self, addresses: Callable[[], Sequence[str]], *, connect_s: float) -> None:
        super().__init__(resolver=_Known(addresses), use_dns_cache=False, limit=0)
        self._connect_s = connect_s

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  aiohttp's own signature
    ) -> ResponseHandler:
        try:
            async with asyncio.timeout(self._connect_s):
                return await super()._create_connection(req, traces, timeout)
        except TimeoutError as error:
            slow = ConnectionRefusedError(None, f"no connection within {self._connect_s:g} s")
            raise aiohttp.ClientConnectorError(req.connection_key, slow) from error

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if should_close:
            protocol.abort()  # a device that hangs would not answer the polite end of TLS for half a minute
        super()._release(key, protocol, should_close=should_close)


class _Known(AbstractResolver):
    """Addresses that are known already."""

    def __init__(self, addresses: Callable[[], Sequence[str]]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=each, port=port, proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ":" in each else socket.AF_INET,
            )
            for each in self._addresses()
        ]  # fmt: skip

    async def close(self) -> None:
        """There is nothing to close."""


class Channel:
    """Requests to one daemon over a session of its own; belongs to the loop that first used it.

    `connector`: makes that of the session.
    """

    def __init__(
        self, address: Address, trust: Verifier, token: str | None, connector: Callable[[], aiohttp.BaseConnector]
    ) -> None:
        self._address = address
        self._trust = trust
        self._connector = connector
        self._headers = fixed_headers(address.authority, token)
        self._session: aiohttp.ClientSession | None = None
        # Only TLS over TCP is aiohttp's own affair. None: to be read, at first and after every failure.
        self._is_tls_tcp = address.path is None and address.server_name is not None
        self._context: ssl.SSLContext | bool | None = None if self._is_tls_tcp else True

    async def close(self) -> None:
        """Close all connections; what is under way breaks. Another request opens anew."""
        session, self._session = self._session, None
        if session is not None and session.connector is not None:
            # Not the session's own close: a request that aiohttp repeats would find it without a connector.
            await session.connector.close()

    async def exchange(self, call: Call[Any], deadline: Deadline) -> Reply:
        """Send a request and read its answer."""
        state = SimpleNamespace(is_reused=False, has_head=False)
        try:
            return await self._attempt(call, deadline, state)
        except TimeoutError:
            raise deadline.exceeded() from None
        except (aiohttp.ClientError, OSError) as error:
            if self._is_tls_tcp:
                self._context = None
            is_stale = state.is_reused and not state.has_head
            raise translate(error, self._address, self._trust, is_stale=is_stale) from error

    async def _attempt(self, call: Call[Any], deadline: Deadline, state: SimpleNamespace) -> Reply:
        session = await self._open()
        headers, data = self._headers, None
        if call.encode is not None:
            length, buffers = call.encode(deadline.left_s())
            size = sum(map(len, buffers))
            headers = {**headers, **body_headers(length, size), **call.headers}
            data = b"".join(buffers) if size <= JOIN_BYTES else _Buffers(buffers)
        async with session.request(
            call.method, self._target(call.path), data=data, headers=headers, allow_redirects=False,
            skip_auto_headers=_SKIP, trace_request_ctx=state, ssl=True if self._context is None else self._context,
            server_hostname=self._address.server_name if self._is_tls_tcp else None,
            timeout=aiohttp.ClientTimeout(total=deadline.left_s()),
        ) as answer:  # fmt: skip
            state.has_head = True
            body = await answer.read()
            return Reply(answer.status, {name.lower(): value for name, value in answer.headers.items()}, body)

    def _target(self, path: str) -> URL:
        # A Unix connector does its own TLS, below what aiohttp takes for plain HTTP.
        scheme = "https" if self._is_tls_tcp else "http"
        return URL(f"{scheme}://{self._address.authority}{path}", encoded=True)

    async def _open(self) -> aiohttp.ClientSession:
        if self._context is None:
            self._context = await asyncio.to_thread(self._trust.context)
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_connection_reuseconn.append(_note_reuse)
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                auto_decompress=False,
                trace_configs=[trace],
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


async def _note_reuse(session: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
    context.trace_request_ctx.is_reused = True


def translate(error: Exception, address: Address, trust: Verifier, *, is_stale: bool) -> InferdError:
    """The error of our tree for one of aiohttp's."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    if isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return ConnectionFailed(f"{address.url} closed the connection: {cause}", is_unsent=True)
    if isinstance(cause, ssl.SSLError):
        return trust.refusal(address, cause)
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = getattr(cause, "strerror", None) or cause
        return ConnectionFailed(f"cannot connect to {address.url}: {reason}", is_unsent=isinstance(cause, NOT_THERE))
    if isinstance(error, (aiohttp.ClientResponseError, aiohttp.InvalidURL)):
        return BadResponse(f"not an HTTP answer: {error}")
    return ConnectionFailed(f"the connection broke: {error}", is_stale=is_stale)
