"""Connections: aiohttp's request handler with what it lacks. Peer credentials read once, a time limit and a size limit
on request heads, a limit on connections, errors in the protocol's form, and an express way for small requests.

Invariant: `is_busy` from the start of a handler until its answer is handed over; `head_since` is when the first byte of
the next head came (or the connection itself), 0 from the start of the handler on. `has_called` is set by requests and
cleared by who asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import StreamReader

from inferd_agent.rest.answers import UNSENT_BYTES, Answer, bare_error, error_answer
from inferd_agent.rest.call import Call, Whole
from inferd_agent.sockets import PeerCredentials, peer_credentials

if TYPE_CHECKING:
    from inferd_agent.rest.app import RestApp
    from inferd_agent.rest.routes import Target

log = logging.getLogger(__name__)

# How long an unread body of a refused request is read and thrown away, so that its sender sees the answer.
_LINGER_S = 1.0
_MAX_HEADERS = 64
_NO_WRITER: Any = None
# Newer parsers stop at a number of requests that nobody took.
_COUNTS_REQUESTS = hasattr(HttpRequestParser, "message_consumed")


class Known(NamedTuple):
    """A request head that this connection sent before; a whole request with it has `size` bytes."""

    head: bytes
    size: int
    message: RawRequestMessage
    target: Target


class Connection(web.RequestHandler):
    """One connection of a `Server`."""

    __slots__ = (
        "_app", "_coming", "_head_bytes", "_is_between", "_is_counted", "_is_express", "_is_lingering", "_is_new",
        "_is_refused", "_is_returning", "_known", "abandon", "has_called", "head_since", "is_busy", "peer",
        "write_timeout_s",
    )  # fmt: skip

    def __init__(self, server: Server, app: RestApp, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._app = app
        self._is_refused = False
        self._is_counted = False
        self._head_bytes = 0
        self._is_express = False
        self._is_between = True  # the parser has all of the last request, and nothing after it
        self._known: Known | None = None
        self._is_new = True
        self._is_lingering = False
        self._is_returning = False
        self._coming: StreamReader | None = None
        self.head_since = 0.0
        self.is_busy = False
        self.has_called = False
        self.abandon: Callable[[], object] | None = None
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
        self._is_counted = True
        sock = transport.get_extra_info("socket")
        self.peer = peer_credentials(sock) if sock is not None else None
        self.head_since = self._loop.time()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self._is_counted:  # turned away as it came
            return
        self._is_counted = False
        self._app.counters.connections -= 1
        self.head_since = 0.0
        super().connection_lost(exc)
        if self.abandon is not None:
            self.abandon()
            self.abandon = None

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        waiter = self._waiter
        known = self._known
        if known is not None:
            if len(data) == known.size and data.startswith(known.head) and not self._is_express and self._is_drained():
                body = cast(StreamReader, Whole(data[len(known.head) :]))
                self._go_express(known.message, body, known.target)
                return
            self._known = None
        was_between, self._is_between = self._is_between, False
        if waiter is None and self._is_returning:
            if self._is_express:  # aiohttp's task would take it; the next time round it sleeps
                self._is_between = was_between
                self._loop.call_soon(self.data_received, data)
                return
        elif waiter is None or waiter.done():
            # aiohttp's task is not there yet, or at work: on a request, or on the rest of a refused one.
            if self._is_new and not self._messages and self._is_head_too_large(data):
                self._refuse_head()
                return
            if not (self.is_busy or self._is_lingering or self.head_since or self._messages):
                self.head_since = self._loop.time()  # the next head, before the task sleeps again
            super().data_received(data)
            self._is_between = was_between and self._was_whole(data)
            self._is_new = self._is_new and not self._messages
            if self._coming is not None:
                self._follow_body(self._coming)
            return
        self._is_lingering = False
        if self._is_express:
            self._feed(data, waiter)
            return
        if not self.head_since:
            self.head_since = self._loop.time()
        if self._is_head_too_large(data):
            self._refuse_head()
            return
        self._feed(data, waiter)
        self._is_between = was_between and self._was_whole(data)
        self._is_new = self._is_new and not self._messages
        if self._messages and not (len(self._messages) == 1 and self._goes_express(data)) and waiter is not None:
            waiter.set_result(None)

    def take(self, body: StreamReader) -> None:
        """aiohttp's task took a request; its body may still be to come."""
        self._is_returning = False
        if not body.is_eof():
            self._coming = body

    def _follow_body(self, body: StreamReader) -> None:
        """Two things aiohttp leaves undone for such a body. Its parser counts the request as waiting only when the body
        has ended, after it was taken, and so would stop for good some requests later. A body that turns out to be no
        HTTP is told to nobody who reads it."""
        parser = self._parser
        if parser is None:
            self._coming = None
        elif body.is_eof():
            self._coming = None
            if _COUNTS_REQUESTS:
                parser.message_consumed()
                if not self._buffer_paused:
                    super().data_received(b"")  # where the parser stopped too early, it goes on
        elif self.is_busy and self._messages and not isinstance(self._messages[-1][0], RawRequestMessage):
            self._coming = None
            body.set_exception(web.RequestPayloadError(self._messages[-1][0].message.split("\n", 1)[0].rstrip(":")))

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp resumes after every read of a body; where nothing was paused there is nothing to parse again."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    # The express way, for small requests that came whole. aiohttp wakes a task for each request, and that task makes
    # another. Where a connection is idle its request is handled right here instead; aiohttp's task sleeps on. Callers
    # send the same head again and again: while the parser waits for a new request, a head that is the same to the
    # byte is not parsed again.

    def has_answered(self) -> None:
        """aiohttp's task handed over all of an answer and goes back to sleep. On a busy machine many a caller asks
        again before it does, and goes the express way too."""
        self._is_returning = not self._messages and not self._is_lingering

    def _process_keepalive(self) -> None:
        """aiohttp: end a connection on which nothing goes on."""
        if self._is_express:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def _feed(self, data: bytes, waiter: asyncio.Future[None] | None) -> None:
        """Parse without waking aiohttp's task, which sleeps on `waiter`."""
        self._waiter = None
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter

    def _is_drained(self) -> bool:
        """The caller takes its answers: all but a little of them is sent."""
        transport = self.transport
        return transport is not None and transport.get_write_buffer_size() <= UNSENT_BYTES

    def _was_whole(self, data: bytes) -> bool:
        """What the parser was just given is one request, all of it, and nothing else."""
        if len(self._messages) != 1:
            return False
        message, payload = self._messages[0]
        if not isinstance(message, RawRequestMessage) or message.chunked or message.upgrade or message.should_close:
            return False
        return payload.is_eof() and data.find(b"\r\n\r\n") == len(data) - payload.total_bytes - 4

    def _goes_express(self, data: bytes) -> bool:
        """`data` came last."""
        message, payload = self._messages[0]
        parser = self._parser
        if (
            not isinstance(message, RawRequestMessage)
            or not payload.is_eof()
            or parser is None
            or not self._is_drained()
        ):
            return False
        target = self._app.express_target(message, payload)
        if target is None:
            return False
        self._messages.popleft()
        if _COUNTS_REQUESTS:
            parser.message_consumed()
        if self._is_between:
            self._known = Known(data[: len(data) - payload.total_bytes], len(data), message, target)
        self._go_express(message, payload, target)
        return True

    def _go_express(self, message: RawRequestMessage, payload: StreamReader, target: Target) -> None:
        self._is_express = True
        self._app.begin_express(Call(message, payload, self, _NO_WRITER, None), target)

    def end_express(self, answer: Answer, call: Call) -> None:
        """Send the answer of an express request, and let whatever came meanwhile go on."""
        self.abandon = None
        self._is_express = False
        self.is_busy = False
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        answer.write(call, transport)
        if not answer.keep_alive:
            self._is_refused = True
            transport.close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        waiter = self._waiter
        if self._messages and waiter is not None and not waiter.done():
            waiter.set_result(None)

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
        self._is_new = False
        self.is_busy = True
        self.has_called = True
        self.head_since = 0.0
        self._head_bytes = 0

    def end(self, *, is_lingering: bool) -> None:
        """The handler has its answer; `is_lingering` where the rest of its body is still to come."""
        self.is_busy = False
        self._is_lingering = is_lingering

    def _refuse_head(self) -> None:
        self.refuse(431, f"the request's head is over {self._app.limits.max_header_bytes} bytes")

    def refuse(self, status: int, text: str) -> None:
        """Answer without a request, and close. Only while no handler runs."""
        self._is_refused = True
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self._app.counters.count("none", status)
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
        request.id = request.id or self._app.ids.next()
        self._app.counters.count("none", status)
        text = (message or "bad request").split("\n", 1)[0].strip().rstrip(":")
        return cast(web.StreamResponse, error_answer(status, f"not HTTP as it should be: {text}", must_close=True))


def _call(
    message: RawRequestMessage,
    payload: StreamReader,
    connection: Connection,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> Call:
    """The request that aiohttp's task has just taken."""
    connection.take(payload)
    return Call(message, payload, connection, writer, task)


class Server(web.Server):
    """aiohttp's low-level server, with our connections and requests."""

    def __init__(self, app: RestApp, loop: asyncio.AbstractEventLoop) -> None:
        limits = app.limits
        super().__init__(
            cast(Any, app.handle),
            request_factory=cast(Any, _call),
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
