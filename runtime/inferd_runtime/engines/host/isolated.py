"""Sessions with a child process of their own, which is started again when it dies.

While the child is down runs are refused at once, with what happened and when to come back. A run that dies with the
child is refused too and never repeated: it may be what killed it. Pauses double with every death that follows soon.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from inferd_runtime.engines import Array, Engine, SessionOptions
from inferd_runtime.engines.host.process import HostProcess
from inferd_runtime.engines.host.session import HostedSession
from inferd_runtime.errors import EngineRefused, HostDied, ModelNotReady

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0

_log = logging.getLogger(__name__)
Start = Callable[[str, int], HostProcess]


def _start(engine: str, places: int) -> HostProcess:
    return HostProcess(engine, places=places)


class IsolatedEngine:
    """An engine whose every session lives in a process of its own."""

    def __init__(self, engine: Engine, start: Start) -> None:
        self._engine = engine
        self._start = start

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def version(self) -> str:
        return self._engine.version

    def devices(self) -> tuple[str, ...]:
        return self._engine.devices()

    def reads(self, path: Path) -> bool:
        return self._engine.reads(path)

    def open(self, path: Path, options: SessionOptions) -> IsolatedSession:
        return IsolatedSession(lambda: self._start(self.name, options.streams), path, options)


def isolated_engine(engine: Engine, start: Start = _start) -> Engine:
    """`engine`, with each session in a child process: slower by a process hop, and a crash of it is nobody else's.

    `start(engine name, places)` starts a child.
    """
    return IsolatedEngine(engine, start)


class IsolatedSession:
    """The `Session` that survives its process. Raises EngineRefused when it cannot be opened the first time, and
    ModelNotReady from a run that finds no process or loses it."""

    def __init__(
        self,
        start: Callable[[], HostProcess],
        path: Path,
        options: SessionOptions,
        *,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._start = start
        self._path = path
        self._options = options
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._closing = threading.Event()
        self._lock = threading.Lock()  # guards _host against `close`
        self._host = start()
        self._reason = ""
        self._back_at_s = 0.0
        try:
            hosted = self._host.open(path, options)
        except HostDied as death:
            raise EngineRefused(str(death)) from death
        except EngineRefused:
            self._host.close()
            raise
        self._hosted: HostedSession | None = hosted
        self.inputs = hosted.inputs
        self.outputs = hosted.outputs
        self.batch_symbols = hosted.batch_symbols
        threading.Thread(target=self._keep, name=f"keep {path.name}", daemon=True).start()

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        hosted = self._hosted
        if hosted is None:
            raise self._refusal(self._reason)
        try:
            return hosted.run(inputs, outputs)
        except HostDied as death:
            raise self._refusal(str(death)) from death

    def close(self) -> None:
        with self._lock:
            self._closing.set()
        self._host.close()

    def _refusal(self, reason: str) -> ModelNotReady:
        wait_s = max(self._back_at_s - time.monotonic(), self._first_pause_s)
        return ModelNotReady(f"{reason}; it is being started again", retry_after_s=wait_s)

    def _keep(self) -> None:
        """Wait for the child's death, pause, start the next, until closed."""
        pause_s = self._first_pause_s
        while True:
            born_s = time.monotonic()
            self._host.wait()
            if self._closing.is_set():
                return
            now = time.monotonic()
            if self._hosted is not None and now - born_s > self._longest_pause_s:
                pause_s = self._first_pause_s  # it did well for long
            self._lay_down(str(self._host.why()), now + pause_s)
            if self._closing.wait(pause_s):
                return
            pause_s = min(2 * pause_s, self._longest_pause_s)
            self._start_again()

    def _lay_down(self, reason: str, back_at_s: float) -> None:
        if self._hosted is not None:
            _log.error("%s: %s; it is started again", self._path.name, reason)
        self._reason, self._back_at_s = reason, back_at_s
        self._hosted = None

    def _start_again(self) -> None:
        """One try; where it fails the host is dead afterwards."""
        with self._lock:
            if self._closing.is_set():
                return
            self._host = host = self._start()
        try:
            hosted = host.open(self._path, self._options)
            if (hosted.inputs, hosted.outputs) != (self.inputs, self.outputs):
                raise EngineRefused("the model's file has other inputs or outputs now")
            self._hosted = hosted
        except (EngineRefused, HostDied) as error:
            self._reason = str(error)
            host.close()
