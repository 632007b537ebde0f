"""The client for asyncio: as `inferd.client`, on aiohttp.

An `AsyncClient` belongs to the loop that first used it.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import aiohttp

from inferd import calls
from inferd.address import Address, Trust, find_token, find_url, parse_url
from inferd.calls import Call, Outputs, Result
from inferd.channel import Channel, TCPConnector, UnixTLSConnector
from inferd.client import DEFAULT_TIMEOUT_S, DEFAULT_WAIT_S
from inferd.errors import ConnectionFailed, InferdError, TLSError
from inferd.memory import Memories, Memory, share
from inferd.protocol import Parameter
from inferd.retry import Attempts, Deadline

if TYPE_CHECKING:
    from inferd.fleet.aio import AsyncFleetClient

T = TypeVar("T")


class AsyncApi(ABC):
    """Every call of the API; the heirs tell how one is run: by one daemon, or by a fleet."""

    _memories = Memories()  # of a client that shares none

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""

    @abstractmethod
    async def _run(self, call: Call[T], timeout_s: float | None) -> T: ...

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Outputs = None,
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
            parameters=parameters, request_id=request_id, timing=timing, memories=self._memories,
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


class AsyncClient(AsyncApi):
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
        self._address = address = parse_url(url or find_url())
        trust = Trust(address, ca)
        self._token = token = find_token(token)
        self._memories = Memories()
        self._channel = Channel(address, trust, token, lambda: _connector(address, trust, max_connections))
        self._timeout_s = timeout_s
        self._retries = retries
        self._wait_s = wait_s

    @staticmethod
    def discover(
        model: str | None = None,
        *,
        token: str | None = None,
        trust: str | os.PathLike[str] | None = None,
        interfaces: Sequence[str] = (),
        timeout_s: float = DEFAULT_TIMEOUT_S,
        wait_s: float = DEFAULT_WAIT_S,
        hedge_s: float | None = None,
        max_connections: int = 16,
    ) -> AsyncFleetClient:
        """The devices of this LAN as one client; as `inferd.Client.discover`. Looking begins with the first call."""
        from inferd.fleet.aio import AsyncFleetClient, find_fleet

        return AsyncFleetClient(
            find_fleet(
                model, token=token, trust=trust, interfaces=interfaces, timeout_s=timeout_s, wait_s=wait_s,
                hedge_s=hedge_s, max_connections=max_connections,
            )
        )  # fmt: skip

    async def close(self) -> None:
        """Close all connections."""
        await self._channel.close()

    @property
    def url(self) -> str:
        """Where this client calls."""
        return self._address.url

    async def share(self, nbytes: int, *, timeout_s: float | None = None) -> Memory:
        """Memory shared with the daemon; as `inferd.Client.share`, and its end needs no waiting:
        `with await client.share(n) as memory`."""
        self._address.check_is_here()
        deadline = Deadline(self._timeout_s if timeout_s is None else timeout_s)
        path = await self._run(calls.memory(), deadline.left_s())
        return await asyncio.to_thread(share, path, self._token, nbytes, self._memories, deadline)

    async def _run(self, call: Call[T], timeout_s: float | None) -> T:
        deadline = Deadline(self._timeout_s if timeout_s is None else timeout_s)
        attempts = Attempts(deadline, is_repeatable=call.is_repeatable, retries=self._retries, wait_s=self._wait_s)
        while True:
            try:
                return call.read(await self._channel.exchange(call, deadline))
            except InferdError as error:
                pause_s = attempts.pause_s(error)
            await asyncio.sleep(pause_s)


def _connector(address: Address, trust: Trust, limit: int) -> aiohttp.BaseConnector:
    if address.path is None:
        return TCPConnector(limit=limit)
    return UnixTLSConnector(
        address.path, trust if address.server_name is not None else None, address.server_name, limit
    )
