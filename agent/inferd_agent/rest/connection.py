"""Connections: aiohttp's request handler with what it lacks. Peer credentials read once, a time limit and a size limit
on request heads, a limit on connections, errors in the protocol's form, and a cheap request object.

Invariant: a connection is `busy` from the start of a handler until its answer is handed over; its head is `coming` from
the first byte (or from the connection's start) until then.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import StreamReader

from inferd_agent.rest.answers import Answer, bare_error, error_answer
from inferd_agent.sockets import PeerCredentials, peer_credentials

if TYPE_CHECKING:
    from inferd_agent.rest.app import RestApp

log = logging.getLogger(__name__)

# How long an unread body of a refused request is read and thrown away, so that its sender sees the answer.
_LINGER_S = 1.0
_MAX_HEADERS = 64


class Call:
    """One request. aiohttp asks a request for `_task`, `_finish` and `_cancel` only; the rest is ours.

    `held_bytes` is what the body holds of the inflight budget; `must_close` is set where the body's end is not known.
    """

    __slots__ = ("_task", "connection", "held_bytes", "id", "message", "must_close", "payload", "principal", "writer")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: Connection,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> None:
        self.message = message
        self.payload = payload
        self.connection = connection
        self.writer = writer
        self._task = task
        self.id = ""
        self.principal: Any = None
        self.held_bytes = 0
        self.must_close = False

    def _finish(self) -> None:
        """aiohttp: the answer is about to be sent."""

    def _cancel(self, error: BaseException) -> None:
        """aiohttp: the connection is gone."""
        self.payload.set_exception(error)


class Connection(web.RequestHandler):
    """One connection of a `Server`."""

    __slots__ = ("_app", "_head_bytes", "_is_refused", "head_since", "is_busy", "peer", "write_timeout_s")

    def __init__(self, server: Server, app: RestApp, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._app = app
        self._is_refused = False
        self._head_bytes = 0
        self.head_since = 0.0
        self.is_busy = False
        self.peer: PeerCredentials | None = None
        self.write_timeout_s = app.limits.body_timeout_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        app = self._app
        app.counters.connections_total += 1
        if app.counters.connections >= app.limits.max_connections:
            self._is_refused = True
            app.counters.connections_refused += 1
            stream = cast(asyncio.Transport, transport)
            stream.write(bare_error(503, f"all {app.limits.max_connections} connections are taken, try again"))
            stream.close()
            return
        app.counters.connections += 1
        sock = transport.get_extra_info("socket")
        self.peer = peer_credentials(sock) if sock is not None else None
        self.head_since = self._loop.time()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._is_refused and self.transport is None:
            return
        if self._manager is not None:
            self._app.counters.connections -= 1
        self.head_since = 0.0
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        if self.is_busy:
            super().data_received(data)
            return
        if not self.head_since:
            self.head_since = self._loop.time()
        if not self._messages and self._is_head_too_large(data):
            self.refuse(431, f"the request's head is over {self._app.limits.max_header_bytes} bytes")
            return
        super().data_received(data)

    def _is_head_too_large(self, data: bytes) -> bool:
        """Counts the bytes of a head that has not ended; a chunk that begins a message is only searched when large."""
        limit = self._app.limits.max_header_bytes
        self._head_bytes += len(data)
        if self._head_bytes <= limit:
            return False
        left = limit - (self._head_bytes - len(data))
        return left <= 0 or data.find(b"\r\n\r\n", 0, left + 4) < 0

    def begin(self) -> None:
        """A handler starts."""
        self.is_busy = True
        self.head_since = 0.0
        self._head_bytes = 0

    def end(self) -> None:
        """The handler has its answer."""
        self.is_busy = False

    def refuse(self, status: int, text: str) -> None:
        """Answer without a request, and close. Only while no handler runs."""
        self._is_refused = True
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self._app.counters.requests[("none", status)] = self._app.counters.requests.get(("none", status), 0) + 1
            transport.write(bare_error(status, text))
            transport.close()

    def handle_error(
        self,
        request: Any,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp: bytes that are no HTTP (400), or a failure outside our handler (500)."""
        if isinstance(exc, LineTooLong):
            status, message = 431, "a line of the request's head is too long"
        elif status >= 500:
            log.error("a request failed outside its handler", exc_info=exc)
            status, message = 500, "internal error"
        request.id = request.id or self._app.next_id()
        requests = self._app.counters.requests
        requests[("none", status)] = requests.get(("none", status), 0) + 1
        text = (message or "bad request").split("\n", 1)[0].strip().rstrip(":")
        return cast(web.StreamResponse, error_answer(status, f"not HTTP as it should be: {text}", must_close=True))


class Server(web.Server):
    """aiohttp's low-level server, with our connections and requests."""

    def __init__(self, app: RestApp, loop: asyncio.AbstractEventLoop) -> None:
        limits = app.limits
        super().__init__(
            cast(Any, app.handle),
            request_factory=cast(Any, Call),
            handler_cancellation=True,
            loop=loop,
        )
        self._app = app
        self._settings: dict[str, Any] = {
            "loop": loop,
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": limits.keepalive_s,
            "lingering_time": _LINGER_S,
            "max_line_size": limits.max_header_bytes,
            "max_field_size": limits.max_header_bytes,
            "max_headers": _MAX_HEADERS,
        }

    def __call__(self) -> Connection:
        return Connection(self, self._app, **self._settings)

    @property
    def open(self) -> list[Connection]:
        """The connections that are open now."""
        return cast("list[Connection]", self.connections)


__all__ = ["Answer", "Call", "Connection", "Server"]
