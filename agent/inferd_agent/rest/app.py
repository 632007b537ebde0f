"""The application: who may ask what, errors into answers, connections from the first byte to the last.

`handle` is the one handler of all requests. Order: path, principal, policy, and only then the body. A refused request's
body is not read: a small one is thrown away, a large one ends the connection.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import socket
import ssl
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, cast

from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader

from inferd.protocol import Request
from inferd.protocol.messages import LiveBody, ReadyBody, ServerMetadata, encode
from inferd.protocol.openai import encode_error
from inferd_agent.bridge import Bridge, Result
from inferd_agent.config import Config
from inferd_agent.errors import MethodNotAllowed, answer_for
from inferd_agent.identity import ANONYMOUS, Identity, require
from inferd_agent.memory import Regions
from inferd_agent.metrics import Counters, Metrics
from inferd_agent.rest.answers import Answer, Spell, error_answer, json_answer, plain_error
from inferd_agent.rest.bodies import Bodies
from inferd_agent.rest.connection import Call, Server
from inferd_agent.rest.embeddings import Embeddings
from inferd_agent.rest.headers import ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, REQUEST_ID
from inferd_agent.rest.infer import Infer
from inferd_agent.rest.models import Models
from inferd_agent.rest.openapi import document
from inferd_agent.rest.plans import Plans
from inferd_agent.rest.routes import Endpoint, Routes, Target
from inferd_agent.rest.settings import Settings
from inferd_agent.rest.shared_memory import SharedMemory
from inferd_agent.rest.v1 import V1
from inferd_agent.sockets import Bound
from inferd_agent.views import extensions
from inferd_runtime import Cancelled, InferdError, Job

log = logging.getLogger(__name__)

_READ = ("read", "infer")
_MAX_ID_CHARS = 128
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
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="rest")
        self._bodies = Bodies(
            max_body_bytes=limits.max_body_bytes,
            max_held_bytes=limits.max_inflight_bytes,
            timeout_s=limits.body_timeout_s,
            pool=self._pool,
        )
        self._infer = Infer(bridge, self._bodies, regions, self._pool, request_timeout_s=limits.request_timeout_s)
        self._infer_endpoint = Endpoint("infer", "POST", self._infer.handle, ("infer",))
        self._embeddings = Embeddings(bridge, self._bodies, self._pool, allowed_ns=self._infer.allowed_ns)
        self._shared_memory = SharedMemory(regions, self._bodies, memory_socket)
        self._v1 = V1(bridge, self._bodies, self._pool, allowed_ns=self._infer.allowed_ns)
        table = self._table(config.metrics.open)
        self._routes = Routes(table)
        self._document = document(table, metrics.version)
        self._about = encode(ServerMetadata("inferd", metrics.version, extensions(regions.takes_keys)))
        self._id_prefix = secrets.token_hex(4)
        self._id_numbers = itertools.count(1)
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
        headers = message.headers
        call.id = self._read_id(headers) if REQUEST_ID in headers else self.next_id()
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
        if target is None or target.endpoint is not self._infer_endpoint or message.method != "POST":
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
        headers = call.message.headers
        call.id = self._read_id(headers) if REQUEST_ID in headers else self.next_id()
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

    def next_id(self) -> str:
        """A request id, unique as long as the daemon runs."""
        return f"{self._id_prefix}-{next(self._id_numbers):x}"

    def _read_id(self, headers: Mapping[str, str]) -> str:
        """The caller's own id, if it is fit to be told again."""
        given = headers[REQUEST_ID]
        if 0 < len(given) <= _MAX_ID_CHARS and given.isascii() and given.isprintable():
            return given
        return self.next_id()

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

    # Endpoints

    def _table(self, metrics_open: bool) -> dict[str, Endpoint]:
        models, plans = Models(self._bridge, self._bodies), Plans(self._bridge, self._bodies)
        measure = Endpoint("plan", "POST", plans.measure, ("admin",))
        table = {
            "/v2/health/live": Endpoint("health", "GET", self._live, None),
            "/v2/health/ready": Endpoint("health", "GET", self._ready, None),
            "/v2": Endpoint("server", "GET", self._metadata, ()),
            "/metrics": Endpoint("metrics", "GET", self._expose, None if metrics_open else ("read",)),
            "/openapi.json": Endpoint("openapi", "GET", self._openapi, ()),
            "/v2/models/stats": Endpoint("statistics", "GET", models.statistics, ("read",)),
            "/v2/repository/index": Endpoint("index", "POST", models.index, ("read",)),
            "/v2/repository/{r}/index": Endpoint("index", "POST", models.index, ("read",)),
            "/v1/models": Endpoint("list", "GET", self._embeddings.models, _READ),
            "/v1/embeddings": Endpoint("embeddings", "POST", self._embeddings.handle, ("infer",), spell=encode_error),
            **self._v1.table(),
            **self._shared_memory.table(),
            **Settings(self._bridge, self._bodies).table(),
            "/inferd/v1/models": Endpoint("details", "GET", models.details, ("read",)),
            "/inferd/v1/models/{m}": Endpoint("details", "GET", models.details, ("read",)),
            "/inferd/v1/models/{m}/plan": Endpoint("plan", "GET", plans.show, ("read", "admin"), measure),
            "/inferd/v1/models/{m}/versions/{n}/plan": Endpoint("plan", "GET", plans.show, ("read", "admin")),
        }
        for word, handler in (("load", models.load), ("unload", models.unload)):
            table[f"/v2/repository/models/{{m}}/{word}"] = Endpoint(word, "POST", handler, ("admin",))
            table[f"/v2/repository/{{r}}/models/{{m}}/{word}"] = Endpoint(word, "POST", models.elsewhere, ("admin",))
        for model in ("/v2/models/{m}", "/v2/models/{m}/versions/{n}"):
            table[f"{model}/infer"] = self._infer_endpoint
            table[model] = Endpoint("metadata", "GET", models.metadata, _READ)
            table[f"{model}/ready"] = Endpoint("ready", "GET", models.ready, _READ)
            table[f"{model}/config"] = Endpoint("config", "GET", models.config, _READ)
            table[f"{model}/stats"] = Endpoint("statistics", "GET", models.statistics, ("read",))
        return table

    async def _live(self, call: Call, target: Target) -> Answer:
        return json_answer(encode(LiveBody(True)))

    async def _ready(self, call: Call, target: Target) -> Answer:
        is_ready = not self._is_draining and self._bridge.runtime.is_ready()
        return json_answer(encode(ReadyBody(is_ready)), 200 if is_ready else 503)

    async def _metadata(self, call: Call, target: Target) -> Answer:
        return json_answer(self._about)

    async def _openapi(self, call: Call, target: Target) -> Answer:
        return json_answer(self._document)

    async def _expose(self, call: Call, target: Target) -> Answer:
        principal = call.principal
        kind, body = self._metrics.expose(None if principal is ANONYMOUS else principal.sees)
        return Answer(200, b"Content-Type: %b\r\n" % kind.encode(), (body,))
