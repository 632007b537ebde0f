"""The client for asyncio: as `inferd.client`, on aiohttp.

aiohttp's own connector for Unix sockets speaks no TLS, so there is one here that does. Files are read off the loop. An
`AsyncClient` belongs to the loop that first used it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from types import SimpleNamespace, TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace
from yarl import URL

from inferd import calls
from inferd.address import Address, Trust, find_url, parse_url
from inferd.calls import Call, Reply, Result
from inferd.client import DEFAULT_TIMEOUT_S
from inferd.connection import JOIN_BYTES, NOT_THERE, SEND_BYTES
from inferd.errors import BadResponse, ConnectionFailed, InferdError, TLSError
from inferd.protocol import Parameter
from inferd.retry import Attempts, Deadline
from inferd.wire import body_headers, fixed_headers

T = TypeVar("T")
_SKIP = ("User-Agent", "Accept", "Content-Type")


class UnixTLSConnector(aiohttp.UnixConnector):
    """aiohttp's Unix connector, with TLS inside the socket when `trust` is given."""

    def __init__(self, path: str, trust: Trust | None, server_name: str | None, limit: int) -> None:
        super().__init__(path, limit=limit)
        self._trust = trust
        self._server_name = server_name

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  aiohttp's own signature; the call's total deadline holds
    ) -> ResponseHandler:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
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


class AsyncClient:
    """Calls one daemon; arguments as `inferd.Client` has them."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = 0,
        wait_s: float = 0.0,
        max_connections: int = 16,
    ) -> None:
        self._address = parse_url(url or find_url())
        self._trust = Trust(self._address, ca)
        token = token if token is not None else os.environ.get("INFERD_TOKEN")
        self._headers = fixed_headers(self._address.authority, token)
        self._timeout_s = timeout_s
        self._retries = retries
        self._wait_s = wait_s
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None
        # Only TLS over TCP is aiohttp's own affair. None: to be read, at first and after every failure.
        self._is_tls_tcp = self._address.path is None and self._address.server_name is not None
        self._context: ssl.SSLContext | bool | None = None if self._is_tls_tcp else True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @property
    def url(self) -> str:
        """Where this client calls."""
        return self._address.url

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Sequence[str] | None = None,
        version: str | int | None = None,
        timeout_s: float | None = None,
        classification: int | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        request_id: str | None = None,
        timing: bool = False,
    ) -> Result:
        """Run a model on `inputs`; as `inferd.Client.infer`."""
        if classification is not None and outputs is None:
            found = await self.metadata(model, version=version, timeout_s=timeout_s)
            outputs = [output["name"] for output in found["outputs"]]
        call = calls.infer(
            model, inputs, outputs=outputs, version=version, classification=classification,
            parameters=parameters, request_id=request_id, timing=timing,
        )  # fmt: skip
        return await self._run(call, timeout_s)

    async def is_live(self, *, timeout_s: float | None = None) -> bool:
        """Whether a daemon answers there."""
        return await self._is(calls.is_live(), timeout_s)

    async def is_ready(
        self, model: str | None = None, *, version: str | int | None = None, timeout_s: float | None = None
    ) -> bool:
        """Whether the daemon has all its models up, or this one."""
        return await self._is(calls.is_ready(model, version), timeout_s)

    async def server_metadata(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Name, version and extensions of the daemon."""
        return await self._run(calls.server_metadata(), timeout_s)

    async def metadata(
        self, model: str, *, version: str | int | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Inputs, outputs, versions and platform of a model."""
        return await self._run(calls.metadata(model, version), timeout_s)

    async def config(
        self, model: str, *, version: str | int | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """The model's configuration, as the protocol has it."""
        return await self._run(calls.config(model, version), timeout_s)

    async def stats(
        self, model: str | None = None, *, version: str | int | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Counters under `model_stats`, of one model or of all."""
        return await self._run(calls.stats(model, version), timeout_s)

    async def index(self, *, ready: bool = False, timeout_s: float | None = None) -> list[dict[str, Any]]:
        """All model versions with their states and reasons, or only the ready ones."""
        return await self._run(calls.index(ready=ready), timeout_s)

    async def models(self, *, timeout_s: float | None = None) -> list[str]:
        """The names of the models that serve now."""
        return sorted({entry["name"] for entry in await self.index(ready=True, timeout_s=timeout_s)})

    async def descriptions(self, model: str | None = None, *, timeout_s: float | None = None) -> list[dict[str, Any]]:
        """What inferd knows of each version beyond the protocol: plan, vetoes, quantisation."""
        return await self._run(calls.descriptions(model), timeout_s)

    async def evidence(
        self, model: str, *, version: str | int | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """The plan that a model runs by, what was measured for it, and how far a measuring is."""
        return await self._run(calls.evidence(model, version), timeout_s)

    async def measure(
        self,
        model: str,
        *,
        budget_s: float | None = None,
        thorough: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Have a model measured and its plan chosen anew; returns at once what `evidence` tells, ask that how it goes.

        `budget_s`: seconds to spend, as configured if not given. `thorough`: also try what holds little promise.
        """
        return await self._run(calls.measure(model, budget_s=budget_s, thorough=thorough), timeout_s)

    async def metrics(self, *, timeout_s: float | None = None) -> str:
        """The daemon's metrics in Prometheus' text form."""
        return await self._run(calls.metrics(), timeout_s)

    async def load(self, model: str, *, timeout_s: float | None = None) -> None:
        """Load a model, or load it again; returns when it serves."""
        await self._run(calls.load(model), timeout_s)

    async def unload(self, model: str, *, timeout_s: float | None = None) -> None:
        """Stop serving a model."""
        await self._run(calls.unload(model), timeout_s)

    async def _is(self, call: Call[bool], timeout_s: float | None) -> bool:
        try:
            return await self._run(call, timeout_s)
        except TLSError:
            raise
        except ConnectionFailed:
            return False

    async def _run(self, call: Call[T], timeout_s: float | None) -> T:
        deadline = Deadline(self._timeout_s if timeout_s is None else timeout_s)
        attempts = Attempts(deadline, is_repeatable=call.is_repeatable, retries=self._retries, wait_s=self._wait_s)
        while True:
            try:
                return call.read(await self._exchange(call, deadline))
            except InferdError as error:
                pause_s = attempts.pause_s(error)
            await asyncio.sleep(pause_s)

    async def _exchange(self, call: Call[Any], deadline: Deadline) -> Reply:
        state = SimpleNamespace(is_reused=False, has_head=False)
        try:
            return await self._attempt(call, deadline, state)
        except TimeoutError:
            raise deadline.exceeded() from None
        except (aiohttp.ClientError, OSError) as error:
            if self._is_tls_tcp:
                self._context = None
            raise translate(error, self._address, is_stale=state.is_reused and not state.has_head) from error

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

    def _connector(self) -> aiohttp.BaseConnector:
        address = self._address
        if address.path is None:
            return aiohttp.TCPConnector(limit=self._max_connections)
        trust = self._trust if address.server_name is not None else None
        return UnixTLSConnector(address.path, trust, address.server_name, self._max_connections)


async def _note_reuse(session: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
    context.trace_request_ctx.is_reused = True


def translate(error: Exception, address: Address, *, is_stale: bool) -> InferdError:
    """The error of our tree for one of aiohttp's."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    if isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return ConnectionFailed(f"{address.url} closed the connection: {cause}", is_unsent=True)
    if isinstance(cause, (ssl.SSLError, ssl.CertificateError)):
        return TLSError(f"TLS with {address.url} failed: {cause}")
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = getattr(cause, "strerror", None) or cause
        return ConnectionFailed(f"cannot connect to {address.url}: {reason}", is_unsent=isinstance(cause, NOT_THERE))
    if isinstance(error, (aiohttp.ClientResponseError, aiohttp.InvalidURL)):
        return BadResponse(f"not an HTTP answer: {error}")
    return ConnectionFailed(f"the connection broke: {error}", is_stale=is_stale)
