"""The client for threads: numpy in and out, connections kept and shared.

A `Client` may be used by any number of threads; at most `max_connections` calls are under way, further ones wait within
their deadline. Make it after a fork, not before. What is repeated, and what never is, is told in `inferd.retry`.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from inferd import calls
from inferd.address import Trust, find_token, find_url, parse_url
from inferd.calls import Call, Outputs, Reply, Result
from inferd.connection import Connection, connect
from inferd.errors import ConnectionFailed, InferdError, TLSError
from inferd.memory import Memories, Memory, share
from inferd.protocol import Parameter
from inferd.retry import Attempts, Deadline
from inferd.wire import fixed_headers, spell, write_head

if TYPE_CHECKING:
    from inferd.fleet.client import FleetClient

T = TypeVar("T")
DEFAULT_TIMEOUT_S = 60.0
# How long a call waits for a fleet of which nobody can take it: a device that restarts, or is not found yet.
DEFAULT_WAIT_S = 5.0


class Api(ABC):
    """Every call of the API; the heirs tell how one is run: by one daemon, or by a fleet."""

    _memories = Memories()  # of a client that shares none

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    @abstractmethod
    def _run(self, call: Call[T], timeout_s: float | None) -> T: ...

    def infer(
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
        """Run a model on `inputs` (arrays, or what numpy makes arrays of; str and bytes become BYTES).

        Of arrays in memory that `share` made only the places are sent. `outputs`: only these; where it maps a name to
        an array in such memory, the output is written into it. `classification`: the best so many classes instead of
        the scores. `timing`: ask where the time goes, for the result's `timing`. The arrays of the result are read-only
        but for those that were given.
        """
        if classification is not None and outputs is None:
            outputs = [
                output["name"] for output in self.metadata(model, version=version, timeout_s=timeout_s)["outputs"]
            ]
        call = calls.infer(
            model, inputs, outputs=outputs, version=version, classification=classification,
            parameters=parameters, request_id=request_id, timing=timing, memories=self._memories,
        )  # fmt: skip
        return self._run(call, timeout_s)

    def is_live(self, *, timeout_s: float | None = None) -> bool:
        """Whether a daemon answers there."""
        return self._is(calls.is_live(), timeout_s)

    def is_ready(
        self, model: str | None = None, *, version: str | int | None = None, timeout_s: float | None = None
    ) -> bool:
        """Whether the daemon has all its models up, or this one."""
        return self._is(calls.is_ready(model, version), timeout_s)

    def server_metadata(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Name, version and extensions of the daemon."""
        return self._run(calls.server_metadata(), timeout_s)

    def metadata(
        self, model: str, *, version: str | int | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Inputs, outputs, versions and platform of a model."""
        return self._run(calls.metadata(model, version), timeout_s)

    def config(self, model: str, *, version: str | int | None = None, timeout_s: float | None = None) -> dict[str, Any]:
        """The model's configuration, as the protocol has it."""
        return self._run(calls.config(model, version), timeout_s)

    def stats(
        self, model: str | None = None, *, version: str | int | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Counters under `model_stats`, of one model or of all."""
        return self._run(calls.stats(model, version), timeout_s)

    def index(self, *, ready: bool = False, timeout_s: float | None = None) -> list[dict[str, Any]]:
        """All model versions with their states and reasons, or only the ready ones."""
        return self._run(calls.index(ready=ready), timeout_s)

    def models(self, *, timeout_s: float | None = None) -> list[str]:
        """The names of the models that serve now."""
        return sorted({entry["name"] for entry in self.index(ready=True, timeout_s=timeout_s)})

    def descriptions(self, model: str | None = None, *, timeout_s: float | None = None) -> list[dict[str, Any]]:
        """What inferd knows of each version beyond the protocol: plan, vetoes, quantisation."""
        return self._run(calls.descriptions(model), timeout_s)

    def evidence(
        self, model: str, *, version: str | int | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """The plan that a model runs by, what was measured for it, and how far a measuring is."""
        return self._run(calls.evidence(model, version), timeout_s)

    def measure(
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
        return self._run(calls.measure(model, budget_s=budget_s, thorough=thorough), timeout_s)

    def metrics(self, *, timeout_s: float | None = None) -> str:
        """The daemon's metrics in Prometheus' text form."""
        return self._run(calls.metrics(), timeout_s)

    def load(self, model: str, *, timeout_s: float | None = None) -> None:
        """Load a model, or load it again; returns when it serves."""
        self._run(calls.load(model), timeout_s)

    def unload(self, model: str, *, timeout_s: float | None = None) -> None:
        """Stop serving a model."""
        self._run(calls.unload(model), timeout_s)

    def _is(self, call: Call[bool], timeout_s: float | None) -> bool:
        try:
            return self._run(call, timeout_s)
        except TLSError:
            raise
        except ConnectionFailed:
            return False


class Client(Api):
    """Calls one daemon. Without arguments: INFERD_URL, else the local daemon's socket; INFERD_TOKEN; INFERD_CA.

    `timeout_s` is for whole calls that give none. `retries`: how often to come back after 429 or 503. `wait_s`: how
    long to wait for a daemon that is not listening yet.
    """

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
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._address = parse_url(url or find_url())
        self._trust = Trust(self._address, ca)
        self._token = find_token(token)
        self._fixed = spell(fixed_headers(self._address.authority, self._token))
        self._memories = Memories()
        self._timeout_s = timeout_s
        self._retries = retries
        self._wait_s = wait_s
        self._sleep = sleep
        self._slots = threading.BoundedSemaphore(max_connections)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._is_closed = False

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
    ) -> FleetClient:
        """The devices of this LAN that are trusted and serve `model` (any model without), called as one.

        `trust`: the file that `inferd trust` writes, if not the usual one. `wait_s`: how long a call waits while no
        device can take it. `hedge_s`: after so long without an answer a call goes to a second device as well, and the
        first answer counts. `max_connections`: to each device.
        """
        from inferd.fleet.aio import find_fleet
        from inferd.fleet.client import FleetClient

        return FleetClient(
            find_fleet(
                model, token=token, trust=trust, interfaces=interfaces, timeout_s=timeout_s, wait_s=wait_s,
                hedge_s=hedge_s, max_connections=max_connections,
            )
        )  # fmt: skip

    def close(self) -> None:
        """Close the connections that are kept; those in use close when their call ends."""
        self._is_closed = True
        self._drop_idle()

    @property
    def url(self) -> str:
        """Where this client calls."""
        return self._address.url

    def share(self, nbytes: int, *, timeout_s: float | None = None) -> Memory:
        """So much memory shared with the daemon, for arrays that are not to be sent and copied.

        Raises Unsupported where the daemon takes none, or is not on this machine; InvalidRequest and Overloaded where
        it is too much.
        """
        self._address.check_is_here()
        deadline = Deadline(self._timeout_s if timeout_s is None else timeout_s)
        return share(self._run(calls.memory(), deadline.left_s()), self._token, nbytes, self._memories, deadline)

    def _run(self, call: Call[T], timeout_s: float | None) -> T:
        deadline = Deadline(self._timeout_s if timeout_s is None else timeout_s)
        attempts = Attempts(deadline, is_repeatable=call.is_repeatable, retries=self._retries, wait_s=self._wait_s)
        while True:
            try:
                return call.read(self._exchange(call, deadline))
            except InferdError as error:
                pause_s = attempts.pause_s(error)
                if isinstance(error, ConnectionFailed):
                    self._drop_idle()
            if pause_s:
                self._sleep(pause_s)

    def _exchange(self, call: Call[Any], deadline: Deadline) -> Reply:
        if not self._slots.acquire(timeout=deadline.left_s()):
            raise deadline.exceeded()
        try:
            connection = self._take() or connect(self._address, self._trust, deadline)
            head, buffers = write_head(call, self._fixed, deadline)
            reply = connection.exchange(head, buffers, deadline)
            self._give_back(connection)
            return reply
        finally:
            self._slots.release()

    def _take(self) -> Connection | None:
        """The connection used last that is still good."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.is_idle():
                return connection
            connection.close()

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if connection.is_reusable and not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    def _drop_idle(self) -> None:
        with self._lock:
            dropped, self._idle = self._idle, []
        for connection in dropped:
            connection.close()
