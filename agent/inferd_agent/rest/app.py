"""The application: who may ask what, errors into answers, connections from the first byte to the last.

`handle` is the one handler of all requests. Order: path, principal, policy, and only then the body. A refused request's
body is not read: a small one is thrown away, a large one ends the connection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, cast

from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader

from inferd.protocol import Request
from inferd_agent.bridge import Bridge, Result
from inferd_agent.config import Config
from inferd_agent.errors import MethodNotAllowed, answer_for
from inferd_agent.identity import ANONYMOUS, Identity, require
from inferd_agent.memory import Regions
from inferd_agent.metrics import Counters, Metrics
from inferd_agent.rest.about import About
from inferd_agent.rest.answers import Answer, Spell, error_answer, plain_error
from inferd_agent.rest.bodies import Bodies
from inferd_agent.rest.call import Call
from inferd_agent.rest.connection import Server
from inferd_agent.rest.embeddings import Embeddings
from inferd_agent.rest.generate import Generate
from inferd_agent.rest.headers import ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING
from inferd_agent.rest.ids import Ids
from inferd_agent.rest.infer import Infer
from inferd_agent.rest.models import Models
from inferd_agent.rest.plans import Plans
from inferd_agent.rest.routes import Routes, Target
from inferd_agent.rest.settings import Settings
from inferd_agent.rest.shared_memory import SharedMemory
from inferd_agent.rest.v1 import V1
from inferd_agent.sockets import Bound
from inferd_agent.views import extensions
from inferd_runtime import Cancelled, InferdError, Job

log = logging.getLogger(__name__)

# After a stop, callers on kept connections have this long to hear of it with their next answer.
_FAREWELL_S = 0.25
_TLS_SHUTDOWN_S = 2.0
# Larger bodies are aligned and waited for, which the express way does not do.
_EXPRESS_BYTES = 64 << 10


class RestApp:
    """Serves any number of listeners. Made and used on the event loop."""

    def __init__(
        self,
        config: Config,
        bridge: Bridge,
        identity: Identity,
        metrics: Metrics,
        regions: Regions,
        *,
        memory_socket: str = "",
    ) -> None:
        self.limits = limits = config.server
        self.counters: Counters = metrics.counters
        self._bridge = bridge
        self._identity = identity
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="rest")
        self._bodies = Bodies(
            max_body_bytes=limits.max_body_bytes,
            max_held_bytes=limits.max_inflight_bytes,
            timeout_s=limits.body_timeout_s,
            pool=self._pool,
        )
        self._infer = Infer(bridge, self._bodies, regions, self._pool, request_timeout_s=limits.request_timeout_s)
        self._embeddings = Embeddings(bridge, self._bodies, self._pool, allowed_ns=self._infer.allowed_ns)
        about = About(metrics, extensions(regions.takes_keys), self._is_ready, is_open=config.metrics.open)
        rooms = (
            about,
            Models(bridge, self._bodies),
            self._infer,
            Generate(bridge, self._bodies, self._pool, allowed_ns=self._infer.allowed_ns),
            V1(bridge, self._bodies, self._pool, allowed_ns=self._infer.allowed_ns),
            self._embeddings,
            SharedMemory(regions, self._bodies, memory_socket),
            Settings(bridge, self._bodies),
            Plans(bridge, self._bodies),
        )
        table = {path: endpoint for room in rooms for path, endpoint in room.table().items()}
        about.tell(table)
        self._routes = Routes(table)
        self.ids = Ids()
        self._loop = asyncio.get_running_loop()
        self._server = Server(self, self._loop)
        self._bound: list[Bound] = []
        self._listening: list[asyncio.Server] = []
        self._leaving: list[asyncio.Task[None]] = []  # one for each closed listener, done when it has no connections
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_draining = False
        metrics.watch(lambda: self._bodies.held)

    # Life

    async def listen(self, bound: Bound, context: ssl.SSLContext | None = None) -> None:
        """Accept connections on a listener; a stop closes it. More listeners may be added any time."""
        tls: dict[str, Any] = {}
        if context is not None:
            tls = {
                "ssl": context,
                "ssl_handshake_timeout": self.limits.header_timeout_s,
                "ssl_shutdown_timeout": _TLS_SHUTDOWN_S,
            }
        self._bound.append(bound)
        for each in bound.sockets:
            # The loop closes the sockets that it is given; the listener needs its own to remove its path.
            sock = each.dup()
            if sock.family == socket.AF_UNIX:
                self._listening.append(await self._loop.create_unix_server(self._server, sock=sock, **tls))
            else:
                self._listening.append(await self._loop.create_server(self._server, sock=sock, **tls))
        if self._sweeper is None:
            self._sweep()

    async def stop_accepting(self) -> None:
        """Close the listeners; open connections go on."""
        self._leaving += [self._loop.create_task(listening.wait_closed()) for listening in self._listening]
        await asyncio.sleep(0)  # the tasks wait, and so are told
        for listening in self._listening:
            listening.close()
        self._listening.clear()
        bounds, self._bound = self._bound, []
        for bound in bounds:
            await asyncio.to_thread(bound.close)  # it removes a path

    async def drain(self, timeout_s: float) -> bool:
        """Take no new connections, answer what was accepted, close all; False when time ran out before that."""
        await self.stop_accepting()
        self._is_draining = True
        end = self._loop.time() + timeout_s
        await asyncio.sleep(min(_FAREWELL_S, timeout_s))
        while True:
            for connection in self._server.open:
                if not connection.is_busy and not connection.head_since:
                    connection.force_close()
            # Connections count as open only after their handshake; the listeners know of those before it, too.
            is_done = not self._server.open and all(task.done() for task in self._leaving)
            if is_done or self._loop.time() >= end:
                break
            await asyncio.sleep(0.02)
        await self.close()
        return is_done

    async def close(self) -> None:
        """End every connection at once and free the threads; idempotent."""
        await self.stop_accepting()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        await self._server.shutdown(0.1)
        for task in self._leaving:
            task.cancel()
        self._embeddings.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def callers(self) -> set[int]:
        """The processes on this machine that called since this was last asked. For any thread."""
        pids = set()
        for connection in self._server.open:
            if connection.peer is not None and (connection.has_called or connection.is_busy):
                connection.has_called = False
                pids.add(connection.peer.pid)
        return pids

    def _is_ready(self) -> bool:
        return not self._is_draining and self._bridge.runtime.is_ready()

    def _sweep(self) -> None:
        """Cut off the connections whose request heads do not come."""
        allowed = self.limits.header_timeout_s
        oldest = self._loop.time() - allowed
        for connection in self._server.open:
            if connection.head_since and connection.head_since < oldest and not connection.is_busy:
                connection.refuse(408, f"the request's head did not arrive within {allowed:g} s")
        self._sweeper = self._loop.call_later(min(1.0, allowed / 4), self._sweep)

    # Requests

    async def handle(self, call: Call) -> Answer:
        """Every request of every connection."""
        connection, message = call.connection, call.message
        connection.begin()
        call.id = self.ids.of(message.headers)
        label = "none"
        spell: Spell = plain_error
        try:
            target = self._routes.find(message.path)
            endpoint = target.endpoint
            label, spell = endpoint.label, endpoint.spell
            if message.method == endpoint.method:
                self._admit(call, target)
                answer = await endpoint.handler(call, target)
            else:
                answer = await self._other_method(call, target)
        except asyncio.CancelledError:
            self.counters.count(label, 499)
            raise
        except Exception as error:
            answer = self._refuse(call, error, spell)
        finally:
            connection.end(is_lingering=not call.payload.is_eof())
            if call.held_bytes:
                self._bodies.release(call)
        self.counters.count(label, answer.status)
        answer.keep_alive = self._may_keep(call, answer)
        return answer

    def express_target(self, message: RawRequestMessage, payload: StreamReader) -> Target | None:
        """Where a request goes that is a small inference, all there and with no encodings; None for all others."""
        target = self._routes.recall(message.path)
        if target is None or target.endpoint is not self._infer.endpoint or message.method != "POST":
            return None
        headers = message.headers
        if payload.total_bytes > _EXPRESS_BYTES or CONTENT_ENCODING in headers:
            return None
        if headers.get(ACCEPT_ENCODING, "identity") != "identity":
            return None
        return target

    def begin_express(self, call: Call, target: Target) -> None:
        """`handle` up to the submit; `_end_express` is called with what comes of it."""
        connection = call.connection
        connection.begin()
        call.id = self.ids.of(call.message.headers)
        try:
            self._admit(call, target)

            def done(request: Request, job: Job, result: Result | None, error: Exception | None) -> None:
                self._end_express(call, request, job, result, error)

            job = self._infer.begin(call, target, done)
        except Exception as error:
            self._answer_express(call, self._refuse(call, error))
            return
        if not isinstance(job, Job):
            self._leave_express(call, job)
            return

        def abandon() -> None:
            self._bridge.abandon(job)
            self._bodies.release(call)
            self.counters.count("infer", 499)

        connection.abandon = abandon

    def _end_express(
        self, call: Call, request: Request, job: Job, result: Result | None, error: Exception | None
    ) -> None:
        answer: Answer | None
        try:
            if result is None:
                answer = self._refuse(call, error or InferdError("no result"))
            else:
                answer = self._infer.end(call, request, job, result)
                if answer is None:
                    self._leave_express(call, self._infer.end_slowly(call, request, job, result))
                    return
        except Exception as failure:
            answer = self._refuse(call, failure)
        self._answer_express(call, answer)

    def _leave_express(self, call: Call, answering: Coroutine[Any, Any, Answer]) -> None:
        """What is left to do takes waiting."""
        work = self._loop.create_task(answering)
        work.add_done_callback(partial(self._end_late, call))
        call.connection.abandon = work.cancel

    def _end_late(self, call: Call, work: asyncio.Task[Answer]) -> None:
        if work.cancelled():
            self._bodies.release(call)
            self.counters.count("infer", 499)
            return
        error = cast("Exception | None", work.exception())
        self._answer_express(call, work.result() if error is None else self._refuse(call, error))

    def _answer_express(self, call: Call, answer: Answer) -> None:
        self._bodies.release(call)
        self.counters.count("infer", answer.status)
        answer.keep_alive = self._may_keep(call, answer)
        call.connection.end_express(answer, call)

    def _may_keep(self, call: Call, answer: Answer) -> bool:
        """Whether the connection goes on after this answer.

        Not where the caller asked for another protocol: the parser takes what follows for that one.
        """
        message = call.message
        must_close = (
            message.should_close or message.upgrade or self._is_draining or answer.must_close or call.must_close
        )
        return not must_close and (call.payload.is_eof() or self._bodies.has_small_rest(call))

    def _admit(self, call: Call, target: Target) -> None:
        scopes = target.endpoint.scopes
        if scopes is None:
            call.principal = ANONYMOUS
            return
        call.principal = self._identity.authenticate(call.message.headers.get(AUTHORIZATION), call.connection.peer)
        if scopes:
            require(call.principal, scopes, target.model or None)

    async def _other_method(self, call: Call, target: Target) -> Answer:
        """The path's second method, HEAD as GET without the body, OPTIONS, and 405 for the rest."""
        endpoint, method = target.endpoint, call.message.method
        other = endpoint.other
        if other is not None and method == other.method:
            self._admit(call, replace(target, endpoint=other))
            return await other.handler(call, target)
        if method == "HEAD" and endpoint.method == "GET":
            self._admit(call, target)
            answer = await endpoint.handler(call, target)
            answer.is_bodiless = True
            return answer
        if method == "OPTIONS":
            return Answer(204, b"Allow: %b\r\n" % endpoint.allow.encode(), ())
        raise MethodNotAllowed(
            f"{method} is not for this path, use {' or '.join(endpoint.methods)}", allow=endpoint.allow
        )

    def _refuse(self, call: Call, error: Exception, spell: Spell = plain_error) -> Answer:
        """The answer that an error is told by; the unknown ones only in the log."""
        row = answer_for(error)
        if row.http == 401:
            self.counters.auth_failures += 1
        if row.http >= 500 and not isinstance(error, InferdError):
            log.error("request %s failed: %s %s", call.id, call.message.method, call.message.path[:200], exc_info=error)
            answer = error_answer(500, f"internal error, see the daemon's log for request {call.id}", spell=spell)
        else:
            status = 400 if isinstance(error, Cancelled) else row.http
            retry_after_s = getattr(error, "retry_after_s", None) if status in (429, 503, 504) else None
            allow = error.allow if isinstance(error, MethodNotAllowed) else ""
            answer = error_answer(status, str(error), retry_after_s=retry_after_s, allow=allow, spell=spell)
        answer.must_close = row.http == 413
        answer.is_bodiless = call.message.method == "HEAD"
        return answer
