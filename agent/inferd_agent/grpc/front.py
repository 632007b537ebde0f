"""The gRPC front end: who may call what, errors into status codes, calls from the first byte to the last.

Every call is taken as a stream of messages, also where only one may come, because then the caller is known, and
refused, before any message is read. One server stands behind each listener; they share all else.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from inferd_agent.bridge import Bridge
from inferd_agent.config import Config, Listener
from inferd_agent.errors import RequestTimeout, answer_for
from inferd_agent.grpc import doors, messages
from inferd_agent.grpc.answers import streamed
from inferd_agent.grpc.held import Held
from inferd_agent.grpc.infer import Infer, Stream
from inferd_agent.grpc.models import Models
from inferd_agent.grpc.patience import Patience
from inferd_agent.grpc.server import Server
from inferd_agent.grpc.shared_memory import SharedMemory, origin_of
from inferd_agent.identity import ANONYMOUS, Identity, Principal, require
from inferd_agent.memory import Regions
from inferd_agent.metrics import Counters, Metrics
from inferd_agent.sockets import Bound, PeerCredentials, bind_by
from inferd_agent.tls import Pem
from inferd_agent.views import extensions
from inferd_runtime import Closed, InferdError, InvalidRequest, Overloaded

log = logging.getLogger(__name__)

_SERVICE = "/inference.GRPCInferenceService/"
_READ, _INFER = ("read", "infer"), ("infer",)
_STREAM, _STREAMED = "grpc/ModelStreamInfer", "grpc/ModelStreamInfer request"
# Streams may stay for ever, so one principal's have this part of server.max_connections at most.
_STREAMS_SHARE = 4
# What ends a stream: nobody who may go on is calling.
_ENDING = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
# Status texts travel percent-encoded in a header block, of which callers take 8 KiB.
_MAX_TEXT = 2000

Answering = Callable[[Principal, Any], Awaitable[Any]]
Handle = Callable[[Principal, bytes, Any], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Method:
    """One kind of call. `scopes` any of which is needed: None is open to all, () to any known caller."""

    label: str
    scopes: tuple[str, ...] | None
    handle: Handle


class GrpcFront:
    """Serves any number of listeners. Made and used on the event loop."""

    def __init__(self, config: Config, bridge: Bridge, identity: Identity, metrics: Metrics, regions: Regions) -> None:
        # What callers do amiss grpcio logs with a trace; what fails here is told by us.
        logging.getLogger("grpc").setLevel(logging.CRITICAL)
        self._limits = limits = config.server
        self._identity = identity
        self._held = Held(limits.max_inflight_bytes)
        self._counters = metrics.counters
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="grpc")
        prefix, numbers = secrets.token_hex(4), itertools.count(1)
        self._next_id: Callable[[], str] = lambda: f"{prefix}-{next(numbers):x}"
        self._infer = Infer(
            bridge, regions, self._pool,
            holding=self._held.holding, request_timeout_s=limits.request_timeout_s, next_id=self._next_id,
        )  # fmt: skip
        self._models = Models(bridge, metrics.version, extensions(regions.takes_keys), lambda: self._is_draining)
        self._memory = SharedMemory(regions)
        self._arrivals = bridge.arrivals
        self._servers: list[tuple[Server, Bound]] = []
        self._streams: dict[Stream, str] = {}
        self._patience = Patience(limits.body_timeout_s)
        self._under_way = 0
        self._is_draining = False
        metrics.watch(lambda: self._held.now)

    # Life

    async def listen(self, listener: Listener, pem: Callable[[], Pem | None]) -> Bound:
        """Bind and serve; a stop closes it. `pem` gives the newest certificate, from any thread. Raises ConfigError."""
        mode = int(self._limits.socket_mode, 8)
        server = self._make_server(doors.known_peer(listener, mode))
        bound = bind_by(partial(doors.listen, server, pem=pem), listener, mode=mode, group=self._limits.socket_group)
        self._servers.append((server, bound))
        await server.start()
        return bound

    async def drain(self, timeout_s: float) -> bool:
        """Take no new calls, answer what was accepted, close all; False when time ran out before that."""
        self._is_draining = True
        for stream in tuple(self._streams):
            stream.end()
        servers, self._servers = self._servers, []
        for _, bound in servers:
            await asyncio.to_thread(bound.close)  # it removes a path
        is_whole = True
        stops = [asyncio.ensure_future(server.shutdown(timeout_s)) for server, _ in servers]
        if stops:
            _, late = await asyncio.wait(stops, timeout=max(timeout_s - 0.05, 0))
            is_whole = not late
            await asyncio.gather(*stops)
        self._pool.shutdown(wait=False, cancel_futures=True)
        return is_whole

    async def close(self) -> None:
        """End every call at once; idempotent."""
        await self.drain(0)

    # Calls

    def _make_server(self, peer: PeerCredentials | None) -> Server:
        """Everything that callers of one listener reach."""
        limits, table = self._limits, self._table(peer)
        handlers = {
            path: grpc.stream_unary_rpc_method_handler(partial(self._call, method, peer))
            for path, method in table.items()
        }
        handlers[f"{_SERVICE}ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(partial(self._stream, peer))
        return Server(
            doors.options(limits),
            handlers,
            open_paths=[path for path, method in table.items() if method.scopes is None],
            busy_paths=(f"{_SERVICE}ModelInfer",),
            most=limits.max_connections,
            patience_s=limits.body_timeout_s,
        )

    def _table(self, peer: PeerCredentials | None) -> dict[str, Method]:
        models, memory = self._models, self._memory
        rows: tuple[tuple[str, tuple[str, ...] | None, Answering], ...] = (
            ("ServerLive", None, models.live),
            ("ServerReady", None, models.ready),
            ("ServerMetadata", (), models.server),
            ("ModelReady", _READ, models.model_ready),
            ("ModelMetadata", _READ, models.metadata),
            ("ModelConfig", _READ, models.config),
            ("ModelStatistics", ("read",), models.statistics),
            ("RepositoryIndex", ("read",), models.index),
            ("RepositoryModelLoad", ("admin",), models.load),
            ("RepositoryModelUnload", ("admin",), models.unload),
            ("SystemSharedMemoryStatus", _INFER, memory.status),
            ("SystemSharedMemoryUnregister", _INFER, memory.unregister),
            ("CudaSharedMemoryStatus", _INFER, memory.nothing),
            ("CudaSharedMemoryRegister", _INFER, memory.refuse),
            ("CudaSharedMemoryUnregister", _INFER, memory.ignore),
            ("TraceSetting", ("read",), models.trace),
            ("LogSettings", ("read",), models.log),
        )
        table = {
            _SERVICE + name: Method(f"grpc/{name}", scopes, _answering(getattr(messages, f"{name}Request"), handle))
            for name, scopes, handle in rows
        }
        register = "SystemSharedMemoryRegister"
        table[_SERVICE + register] = Method(f"grpc/{register}", _INFER, partial(self._register, peer))
        table[f"{_SERVICE}ModelInfer"] = Method("grpc/ModelInfer", _INFER, self._infer_one)
        health = Method("grpc/Health", None, _answering(messages.HealthCheckRequest, models.health))
        return table | {"/grpc.health.v1.Health/Check": health}

    async def _call(self, method: Method, peer: PeerCredentials | None, _: Any, context: Any) -> bytes:
        """A call with one message."""
        self._under_way += 1
        with _Counted(self._counters, method.label) as call:
            try:
                caller = self._admit(method.scopes, peer, context)
                message = b"" if method.scopes is None else await self._receive(context)  # of strangers nothing is read
                with self._held.holding(len(message)):
                    return await method.handle(caller, message, context)
            except Exception as error:
                call.status, code, text = self._refusal(error, method.label)
                await context.abort(code, text, _retry_after(error))
                raise
            finally:
                self._under_way -= 1

    async def _infer_one(self, caller: Principal, message: bytes, context: Any) -> bytes:
        asked = await self._infer.read(message)
        return await self._infer.answer(caller, asked, context.time_remaining(), is_lone=self._under_way == 1)

    async def _register(self, peer: PeerCredentials | None, caller: Principal, message: bytes, context: Any) -> bytes:
        """The one call that depends on where its caller sits."""
        asked = _parse(messages.SystemSharedMemoryRegisterRequest, message)
        answer: bytes = self._memory.register(caller, asked, origin_of(peer, context.peer())).SerializeToString()
        return answer

    async def _stream(self, peer: PeerCredentials | None, _: Any, context: Any) -> None:
        """ModelStreamInfer: an error of one request is told in its answer, and the stream lives on."""
        with _Counted(self._counters, _STREAM) as call:
            try:
                await self._serve_stream(self._admit(_INFER, peer, context), peer, context)
                if self._is_draining:
                    raise Closed("the daemon is shutting down")
            except grpc.aio.InternalError:  # the caller left while an answer was on its way
                call.status = 499
                raise
            except Exception as error:
                call.status, code, text = self._refusal(error, _STREAM)
                await context.abort(code, text, _retry_after(error))

    async def _serve_stream(self, caller: Principal, peer: PeerCredentials | None, context: Any) -> None:
        most = max(self._limits.max_connections // _STREAMS_SHARE, 1)
        if list(self._streams.values()).count(caller.owner) >= most:
            raise Overloaded(f"{most} streams of {caller.name} are open, and no more are taken")
        stream = Stream(partial(_next, context), partial(self._answer_streamed, peer, context))
        self._streams[stream] = caller.owner
        try:
            async with aclosing(stream.answers()) as answers:
                async for answer in answers:
                    with self._patience:
                        await context.write(answer)
        except TimeoutError:
            raise RequestTimeout(f"an answer was not taken within {self._limits.body_timeout_s:g} s") from None
        finally:
            del self._streams[stream]

    async def _answer_streamed(self, peer: PeerCredentials | None, context: Any, message: bytes) -> bytes:
        """One request of a stream, from a caller who is looked up anew: tokens end, and each request counts."""
        asked = None
        with _Counted(self._counters, _STREAMED) as call:
            try:
                caller = self._admit(_INFER, peer, context)
                with self._held.holding(len(message)):
                    asked = await self._infer.read(message)
                    return streamed(await self._infer.answer(caller, asked, None, is_streamed=True))
            except Exception as error:
                call.status, code, text = self._refusal(error, _STREAMED)
                if code in _ENDING:
                    raise
                told = messages.ModelStreamInferResponse(error_message=text)
                if asked is not None:
                    told.infer_response.id = asked.request.id
                    told.infer_response.model_name = asked.model
                answer: bytes = told.SerializeToString()
                return answer

    def _admit(self, scopes: tuple[str, ...] | None, peer: PeerCredentials | None, context: Any) -> Principal:
        if scopes is None:
            return ANONYMOUS
        given = [value for key, value in context.invocation_metadata() if key == "authorization"]
        caller = self._identity.authenticate(given[0] if given else None, peer)
        if scopes:
            require(caller, scopes)
        return caller

    async def _receive(self, context: Any) -> bytes:
        """The one message of a call."""
        number = self._arrivals.begin()
        try:
            with self._patience:
                message = await context.read()
        except TimeoutError:
            raise RequestTimeout(f"no whole message came within {self._limits.body_timeout_s:g} s") from None
        finally:
            self._arrivals.end(number)
        if message is grpc.aio.EOF:
            raise InvalidRequest("the call ended without a message")
        received: bytes = message
        return received

    def _refusal(self, error: Exception, label: str) -> tuple[int, grpc.StatusCode, str]:
        """How an error is told: HTTP's number for the counters, gRPC's code, and the text; the unknown ones only in the
        log."""
        row = answer_for(error)
        if row.http == 401:
            self._counters.auth_failures += 1
        text = str(error)
        if row.http >= 500 and not isinstance(error, InferdError):
            number = self._next_id()
            log.error("request %s failed: %s", number, label, exc_info=error)
            text = f"internal error, see the daemon's log for request {number}"
        code: grpc.StatusCode = getattr(grpc.StatusCode, row.grpc)
        return row.http, code, text[:_MAX_TEXT]


class _Counted:
    """`with _Counted(...) as call` counts a call by the status that it ends with."""

    __slots__ = ("_counters", "_label", "status")

    def __init__(self, counters: Counters, label: str) -> None:
        self._counters = counters
        self._label = label
        self.status = 200

    def __enter__(self) -> _Counted:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is asyncio.CancelledError and self.status == 200:  # else the caller left before it heard of that
            self.status = 499
        self._counters.count(self._label, self.status)


async def _next(context: Any) -> bytes | None:
    """The next message of a call, None at the end."""
    message = await context.read()
    return None if message is grpc.aio.EOF else message


def _parse(kind: Any, message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidRequest(f"this is no {kind.DESCRIPTOR.name}: {error}") from None


def _retry_after(error: Exception) -> tuple[tuple[str, str], ...]:
    """Trailing metadata, as HTTP's Retry-After."""
    wait_s = getattr(error, "retry_after_s", None)
    return (("retry-after", str(math.ceil(wait_s))),) if wait_s is not None else ()


def _answering(kind: Any, answer: Answering) -> Handle:
    """A handler of bytes from one of messages."""

    async def handle(caller: Principal, message: bytes, _: Any) -> bytes:
        answered: bytes = (await answer(caller, _parse(kind, message))).SerializeToString()
        return answered

    return handle
