"""The parent's side: starts a child with one engine, asks it, watches it, and says how it died.

A thread of its own starts the child and waits for it, because the kernel ties a child's life to the thread that made
it. Whoever kills the child notes the reason first, so that everybody who meets the end of the pipes tells the same.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Self

import msgspec

from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.host import words
from inferd_runtime.engines.host.memory import private_bytes
from inferd_runtime.engines.host.place import Place, Visit
from inferd_runtime.engines.host.session import HostedSession
from inferd_runtime.errors import EngineFault, HostDeath, HostDied

PROGRAM = (sys.executable, "-P", "-m", "inferd_runtime.engines.host")
# How long a run may take before its child counts as hung.
RUN_TIMEOUT_S = 60.0
# How often a child with a memory limit is looked at while somebody waits for it.
_LOOK_EVERY_S = 0.02
# How long a child may take to be gone: one that was killed, and one that closed its pipes.
_END_WAIT_S = 10.0
_EXIT_WAIT_S = 2.0
# Signals that a process does not raise by its own mistakes.
_SENT = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


class HostProcess:
    """A child process with one engine; any thread may call, and up to `places` calls are served at once.

    The child runs at `nice`, on the CPUs `cores` (empty: all that we have). While a call waits for it, it is killed as
    soon as its private memory passes `memory_limit_bytes` (0: no limit; one that did nothing yet has some 30 MB).
    Every call, and the making, may raise HostDied, whose `kind` and words say how the child ended; from then on every
    call does.

        with HostProcess("openvino", memory_limit_bytes=1 << 30) as host:
            before = host.memory_bytes()
            session = host.open(path, SessionOptions(streams=2), timeout_s=60)
            alone = session.measure(inputs_of_one_row, seconds=0.2)
            full = session.measure(inputs_of_16_rows, seconds=1.0, callers=2)
            print(alone.p50_us, full.runs_per_s * 16, host.memory_bytes() - before)
            session.close()
    """

    def __init__(
        self,
        engine: str,
        *,
        places: int = 4,
        memory_limit_bytes: int = 0,
        nice: int = 0,
        cores: Collection[int] = (),
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.engine = engine
        self._memory_limit_bytes = memory_limit_bytes
        self._change = threading.Condition()  # guards all that follows
        self._free: list[Place] = []
        self._pid = 0
        self._death: tuple[HostDeath, str] | None = None  # it is bound to die, or dead
        self._is_over = False
        try:
            for _ in range(places):
                self._free.append(Place())
            theirs = tuple(place.theirs for place in self._free)
            birth = words.Birth(engine, os.getpid(), theirs, nice, tuple(cores))
            args = ([*program, msgspec.json.encode(birth).decode()], tuple(self._free))
            self._keeper = threading.Thread(target=self._keep, args=args, name=f"host of {engine}", daemon=True)
            self._keeper.start()
        except (OSError, RuntimeError) as error:  # no descriptors, or no thread
            for place in self._free:
                place.hand_over()
                place.close()
            raise HostDied(f"no process for {engine} could be prepared: {error}", kind="gone") from None

    def open(
        self, path: Path, options: SessionOptions, *, timeout_s: float = 120.0, run_timeout_s: float = RUN_TIMEOUT_S
    ) -> HostedSession:
        """Compile in the child. A run that later takes longer than `run_timeout_s` ends the child. Raises
        EngineRefused, HostDied."""
        with self.visit(timeout_s) as visit:
            return HostedSession(self, visit.ask(words.Open(path, options), words.Opened), run_timeout_s)

    @property
    def pid(self) -> int:
        """0 before the child is started, and when it is gone."""
        return self._pid

    def memory_bytes(self) -> int:
        """The child's private resident memory, its own children's too; 0 when it is gone."""
        return private_bytes(self._pid) if self._pid else 0

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until the child is gone; False on timeout."""
        with self._change:
            return self._change.wait_for(lambda: self._is_over, timeout_s)

    def why(self) -> HostDied | None:
        """How the child died, or is about to; None while it lives."""
        death = self._death
        return HostDied(death[1], kind=death[0]) if death else None

    def close(self) -> None:
        """Kill the child and wait for its end; idempotent."""
        self._kill("gone", f"the process of {self.engine} was closed")
        self._keeper.join(_END_WAIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    # Calls

    @contextlib.contextmanager
    def visit(self, timeout_s: float) -> Iterator[Visit]:
        """A place for one call, which has to be answered in time; for `HostedSession`.

        A child that dies meanwhile, or answers nonsense, is HostDied."""
        end_s = time.monotonic() + timeout_s
        place = self._enter(timeout_s)
        try:
            yield Visit(place, functools.partial(self._watch, end_s=end_s, timeout_s=timeout_s))
        except (EOFError, BrokenPipeError):
            raise self._died() from None
        except ValueError as error:
            self._kill("crashed", f"the process of {self.engine} answered with nonsense: {error}")
            raise self._died() from None
        except OSError as error:
            raise EngineFault(f"no shared memory for the process of {self.engine}: {error.strerror}") from None
        finally:
            self._leave(place)

    def _enter(self, timeout_s: float) -> Place:
        with self._change:
            if not self._change.wait_for(lambda: self._free or self._death, timeout_s):
                raise EngineFault(f"all places in the process of {self.engine} were taken for {timeout_s:g} s")
            death = self.why()
            if death:
                raise death
            return self._free.pop()

    def _leave(self, place: Place) -> None:
        if place.is_asked:
            self._kill("gone", f"a caller left the process of {self.engine} in the middle of a call")
        with self._change:
            if self._is_over:
                place.close()
            else:
                place.region.trim()
                self._free.append(place)
                self._change.notify()

    def _watch(self, fd: int, *, end_s: float, timeout_s: float) -> None:
        """Wait until there is something to read. Raises EOFError where that is over."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        limit = self._memory_limit_bytes
        while True:
            left_s = max(0.0, end_s - time.monotonic())
            if poll.poll(math.ceil(1000 * (min(left_s, _LOOK_EVERY_S) if limit else left_s))):
                return
            if limit and self.memory_bytes() > limit:
                much = f"more than {limit / (1 << 20):.0f} MiB of memory"
                self._kill("memory", f"the process of {self.engine} took {much} and was killed")
                raise EOFError
            if left_s <= 0:
                self._kill("hung", f"the process of {self.engine} gave no answer within {timeout_s:g} s and was killed")
                raise EOFError

    # Life and death

    def _keep(self, command: Sequence[str], places: Sequence[Place]) -> None:
        """Start the child and wait for its end."""
        fds = [fd for place in places for fd in place.theirs]
        try:
            child = subprocess.Popen(  # noqa: S603 - our own program
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=fds,
                process_group=0,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # numpy has nothing to compute there
            )
        except OSError as error:
            self._bury(("gone", f"the process of {self.engine} could not be started: {error.strerror}"))
            return
        finally:
            for place in places:
                place.hand_over()
        with self._change:
            self._pid = child.pid
            if self._death:
                child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with self._change:  # until it is reaped its number is nobody else's
            self._pid = 0
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)  # what it may have started
            code = child.wait()
        self._bury(_cause(self.engine, code))

    def _kill(self, kind: HostDeath, reason: str) -> None:
        with self._change:
            self._death = self._death or (kind, reason)
            if self._pid:
                os.kill(self._pid, signal.SIGKILL)
            self._change.notify_all()

    def _bury(self, cause: tuple[HostDeath, str]) -> None:
        with self._change:
            self._death = self._death or cause
            self._is_over = True
            while self._free:
                self._free.pop().close()
            self._change.notify_all()

    def _died(self) -> HostDied:
        """How the child died, as soon as it has."""
        if not self.wait(_EXIT_WAIT_S):
            self._kill("crashed", f"the process of {self.engine} closed its pipes")
            self.wait(_END_WAIT_S)
        return self.why() or HostDied(f"the process of {self.engine} is gone", kind="gone")


def _cause(engine: str, code: int) -> tuple[HostDeath, str]:
    """What a child died of by itself, from its exit code, or minus its signal."""
    if code >= 0:
        return "crashed", f"the process of {engine} ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if -code in _SENT:
        doubt = ", by somebody or for want of memory" if -code == signal.SIGKILL else " by somebody"
        return "gone", f"the process of {engine} was killed with {name}{doubt}"
    return "crashed", f"the process of {engine} crashed with {name} ({signal.strsignal(-code)})"
