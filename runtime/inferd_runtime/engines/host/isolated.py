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
# Building a model for a GPU may take minutes.
_OPEN_TIMEOUT_S = 900.0
_JOIN_WAIT_S = 10.0

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

    def precisions(self, device: str) -> tuple[str, ...]:
        return self._engine.precisions(device)

    def reads(self, path: Path) -> bool:
        return self._engine.reads(path)

    def open(self, path: Path, options: SessionOptions) -> IsolatedSession:
        return IsolatedSession(lambda: self._start(self.name, options.streams), path, options)


def isolated_engine(engine: Engine, start: Start = _start) -> Engine:
    """`engine`, with each session in a child process: slower by a process hop, and a crash of it is nobody else's.

    `start(engine name, places)` starts a child.
    """
    return IsolatedEngine(engine, start)


class Pauses:
    """How long to wait before the next life: twice as long every time, until one lasted."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self.first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s

    def after(self, lived_s: float) -> float:
        """The pause after a life of `lived_s`."""
        pause_s = self.first_s if lived_s > self._longest_s else self._next_s
        self._next_s = min(2 * pause_s, self._longest_s)
        return pause_s


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
        self._pauses = Pauses(first_pause_s, longest_pause_s)
        self._closing = threading.Event()
        self._lock = threading.Lock()  # no new host once closing
        self._reason = ""
        self._back_at_s = 0.0
        try:
            self._host = start()
            hosted = self._open()
        except HostDied as death:
            raise EngineRefused(str(death)) from death
        self.inputs = hosted.inputs
        self.outputs = hosted.outputs
        self.batch_symbols = hosted.batch_symbols
        self._opening_s = hosted.compile_ms / 1000
        self._hosted: HostedSession | None = hosted
        self._keeper = threading.Thread(target=self._keep, name=f"keeper of {path.name}", daemon=True)
        self._keeper.start()

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        hosted = self._hosted
        if hosted is None:
            raise self._refusal(self._reason)
        try:
            return hosted.run(inputs, outputs)
        except HostDied as death:
            raise self._refusal(str(death)) from death

    def close(self) -> None:
        """End the child; its runs under way raise ModelNotReady."""
        with self._lock:
            self._closing.set()
        self._host.close()
        self._keeper.join(_JOIN_WAIT_S)

    def _refusal(self, reason: str) -> ModelNotReady:
        if self._closing.is_set():
            return ModelNotReady(reason)
        wait_s = max(self._back_at_s - time.monotonic(), self._pauses.first_s)
        return ModelNotReady(f"{reason}; it is being started again", retry_after_s=wait_s)

    def _keep(self) -> None:
        """Wait for the child's death, pause, start the next, until closed."""
        is_closing = False
        while not is_closing:
            born_s = time.monotonic()
            self._host.wait()
            pause_s = self._pauses.after(time.monotonic() - born_s)
            self._note_death(pause_s)
            is_closing = self._closing.wait(pause_s) or not self._start_again()

    def _note_death(self, pause_s: float) -> None:
        self._back_at_s = time.monotonic() + pause_s + self._opening_s
        if self._hosted is not None:
            self._reason = str(self._host.why())
            self._hosted = None
            if not self._closing.is_set():
                _log.error("%s: %s; it is started again", self._path.name, self._reason)

    def _start_again(self) -> bool:
        """Try once; the host is dead where that fails. False when closing."""
        try:
            with self._lock:
                if self._closing.is_set():
                    return False
                self._host = self._start()
            hosted = self._open()
            if (hosted.inputs, hosted.outputs) == (self.inputs, self.outputs):
                self._hosted = hosted
            else:
                self._reason = f"{self._path.name} has other inputs or outputs now"
                self._host.close()
        except (EngineRefused, HostDied) as error:
            self._reason = str(error)
        return True

    def _open(self) -> HostedSession:
        """Open the model in the newest host, or end that."""
        try:
            return self._host.open(self._path, self._options, timeout_s=_OPEN_TIMEOUT_S)
        except BaseException:
            self._host.close()
            raise
