"""The child processes that trials run in: one an engine, started when it is needed, and anew after it died."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.host import HostedSession, HostProcess, Measured
from inferd_runtime.errors import EngineFault, EngineRefused
from inferd_runtime.planning.inputs import Array, Feeds
from inferd_runtime.spec import ModelSpec

StartHost = Callable[[str], HostProcess]


class NamedSession:
    """A session in a child that takes inputs by name and answers in the order of `spec`, whatever the engine's own
    order is. Raises EngineFault, InvalidRequest, HostDied."""

    def __init__(self, session: HostedSession, spec: ModelSpec, patience_s: float) -> None:
        self._session = session
        self._patience_s = patience_s
        self._inputs = matched([t.name for t in session.inputs], [t.name for t in spec.inputs], "inputs")
        answers = matched([t.name for t in spec.outputs], [t.name for t in session.outputs], "outputs")
        places = {tensor.name: index for index, tensor in enumerate(session.outputs)}
        self._outputs = [places[name] for name in answers]

    @property
    def compile_ms(self) -> float:
        return self._session.compile_ms

    def run(self, feeds: Feeds) -> list[Array]:
        return self._session.run([feeds[name] for name in self._inputs], self._outputs)

    def measure(self, *turns: Feeds, seconds: float, callers: int = 1) -> Measured:
        """Time runs, in the child; see `HostedSession.measure`."""
        inputs = [[feeds[name] for name in self._inputs] for feeds in turns]
        return self._session.measure(*inputs, seconds=seconds, callers=callers, timeout_s=seconds + self._patience_s)

    def close(self) -> None:
        self._session.close()


class Hosts:
    """For one thread, but `close` is for any. Every call may raise HostDied, and then the next one finds a fresh child;
    a single answer may take `patience_s`."""

    def __init__(self, start: StartHost, patience_s: float) -> None:
        self._start = start
        self._patience_s = patience_s
        self._hosts: dict[str, HostProcess] = {}
        self._is_closed = False

    def open(self, engine: str, path: Path, options: SessionOptions, spec: ModelSpec) -> NamedSession:
        """Compile in the engine's child. Raises EngineRefused, EngineFault where it is another model's signature."""
        # TensorRT tries out kernels while it compiles, for minutes.
        patience_s = self._patience_s * (20 if options.device.startswith("tensorrt") else 1)
        session = self._living(engine).open(path, options, timeout_s=patience_s, run_timeout_s=self._patience_s)
        return NamedSession(session, spec, self._patience_s)

    def memory_bytes(self, engine: str) -> int:
        """What the engine's child holds, after its library was loaded."""
        return self._living(engine).memory_bytes()

    def close(self) -> None:
        """End all children, and what is asked of them; idempotent."""
        self._is_closed = True
        while self._hosts:
            self._hosts.popitem()[1].close()

    def _living(self, engine: str) -> HostProcess:
        host = self._hosts.get(engine)
        if host is None or host.why():
            if host:
                host.close()
            host = self._hosts[engine] = self._start(engine)
            if self._is_closed:
                self.close()
            # Opening nothing loads the library, whose memory and time are no candidate's.
            with contextlib.suppress(EngineRefused):
                host.open(Path(os.devnull), SessionOptions(), timeout_s=self._patience_s)
        return host


def matched(wanted: list[str], there: list[str], role: str) -> list[str]:
    """For each of `wanted` its name among `there`: the same one, or by place where an engine gave names of its own."""
    if set(wanted) <= set(there):
        return wanted
    if len(wanted) != len(there):
        raise EngineFault(f"it has the {role} {', '.join(map(repr, there))}, expected {', '.join(map(repr, wanted))}")
    return there
