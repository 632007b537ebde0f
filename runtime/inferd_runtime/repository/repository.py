"""The models on disk and what is served of them: finds versions, loads them one at a time, swaps, drains and reloads.

One loader thread owns every mutable thing (see `keeper`); everybody else reads an immutable snapshot that it replaces
at once, so `get` takes no lock. A version that fails keeps its reason and harms no other; a new version or new content
takes traffic only once it is open and warm, and where it fails the old one stays.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from inferd_runtime.errors import Closed, InferdError, LoadFailed, ModelNotFound, ModelNotReady
from inferd_runtime.repository.digest import Settling
from inferd_runtime.repository.entries import Entry, Snapshot
from inferd_runtime.repository.journal import LoadJournal
from inferd_runtime.repository.keeper import Keeper
from inferd_runtime.repository.loading import Loaded, Loader, OpenVersion, Served
from inferd_runtime.repository.watch import Watcher
from inferd_runtime.spec import ModelDescription, State

__all__ = ["OpenVersion", "Repository", "Served"]

log = logging.getLogger("inferd.repository")

# How often to look through the folders where changes cannot be watched.
POLL_S = 2.0
_JOIN_S = 5.0
# A file that goes on growing keeps the first round from ending no longer than this many settle times.
_FIRST_ROUND_SETTLES = 4


@dataclass(slots=True)
class _Command:
    """Something a caller waits for. Begun by the loader thread."""

    ask: Callable[[str], None]
    name: str
    done: Future[None] = field(default_factory=Future)


class Repository:
    """The models under `roots`, kept as their files say.

    `open_version(files, settings, digest)` plans, opens and warms a version, on the loader thread; it raises LoadFailed
    or InvalidModel with the reason. `digest` is that of the version's content; `files.variants` maps "" (the plain
    file), "int8", ... to paths; `settings.wishes()` is what `planning.plan_version` takes. `cache_dir` holds the
    journal of loads under way. `load="none"` loads only what `load()` asks for.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        open_version: OpenVersion,
        cache_dir: Path,
        watch: bool = True,
        load: str = "all",
        settle_s: float = 0.5,
        rescan_s: float = 30.0,
        drain_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._snapshot = Snapshot()
        self._settle_s = settle_s
        self._rescan_s = rescan_s
        self._drain_s = drain_s
        self._clock = clock
        self._waited_since: float | None = None
        self._wake = threading.Event()
        self._first_round = threading.Event()
        self._is_closing = False
        # Held while a command is added or closing begins, so that no command is added that nobody will answer.
        self._order_lock = threading.Lock()
        self._commands: deque[_Command] = deque()
        self._pending: list[_Command] = []
        self._drained: deque[Entry] = deque()
        self._retiring: set[threading.Thread] = set()
        self._loader = Loader(open_version, LoadJournal(cache_dir / "loading"))
        self._keeper = Keeper(
            roots,
            self._loader,
            Settling(settle_s, clock=clock, wall=wall),
            retire=self._retire,
            publish=self._publish,
            is_parked=load == "none",
        )
        self._is_watching = watch
        self._watcher = Watcher(roots, self._wake.set)
        self._thread = threading.Thread(target=self._run, name="inferd-loader", daemon=True)

    def start(self) -> None:
        """Begin scanning, loading and watching in the background."""
        self._thread.start()
        if self._is_watching:
            self._watcher.start()

    def wait_loaded(self, timeout_s: float) -> bool:
        """Whether the first round of loading was over within `timeout_s`; a close ends the wait."""
        return self._first_round.wait(timeout_s) and not self._is_closing

    def is_ready(self) -> bool:
        """The first round is over, and every model that failed or is loading has another version that serves."""
        if not self._first_round.is_set():
            return False
        snapshot = self._snapshot
        return all(
            name in snapshot.ready or not any(d.state in (State.FAILED, State.LOADING) for d in descriptions)
            for name, descriptions in snapshot.known.items()
        )

    def get(self, name: str, version: int | None = None) -> Served:
        """What serves this version, None for the highest; lock-free. Raises ModelNotFound, ModelNotReady.

        It may begin to drain right after: a submit that it refuses then is worth one more `get`.
        """
        try:
            return self._snapshot.ready[name][version]
        except KeyError:
            raise self._absence(name, version) from None

    def describe(self, name: str, version: int | None = None) -> ModelDescription:
        """None: the highest ready version, else the highest known. Raises ModelNotFound."""
        snapshot = self._snapshot
        known = snapshot.known.get(name)
        if not known:
            raise ModelNotFound(f"there is no model {name!r}")
        if version is None:
            return next((d for d in reversed(known) if d.state is State.READY), known[-1])
        for description in known:
            if description.version == version:
                return description
        raise ModelNotFound(f"model {name!r} has no version {version}, only {_numbers(known)}")

    def versions(self, name: str) -> tuple[int, ...]:
        """The ready versions, ascending. Raises ModelNotFound."""
        snapshot = self._snapshot
        if name not in snapshot.known:
            raise ModelNotFound(f"there is no model {name!r}")
        return tuple(d.version for d in snapshot.known[name] if d.state is State.READY)

    def models(self) -> tuple[ModelDescription, ...]:
        """Every version known, refused folders too (as version 0), sorted by name and version."""
        snapshot = self._snapshot
        everything = [d for descriptions in snapshot.known.values() for d in descriptions]
        return tuple(sorted((*everything, *snapshot.refused), key=lambda d: (d.name, d.version)))

    def serving(self) -> tuple[Served, ...]:
        """Everything that serves now, for draining and statistics."""
        ready = self._snapshot.ready
        return tuple(served for versions in ready.values() for number, served in versions.items() if number is not None)

    def load(self, name: str, timeout_s: float = 600.0) -> None:
        """Load, or load again, what the model's version policy asks for; blocks.

        Raises LoadFailed, InvalidModel, ModelNotFound; after `timeout_s` LoadFailed, while loading goes on.
        """
        self._order(self._keeper.ask_load, name, timeout_s)

    def unload(self, name: str) -> None:
        """Unload every version of a model and drain it, within `drain_s`; it stays unloaded until `load`, whatever
        happens to its files. Raises ModelNotFound."""
        self._order(self._keeper.ask_unload, name, self._drain_s + 600.0)

    def refresh(self, name: str, version: int, timeout_s: float = 600.0) -> None:
        """Open a version that serves once more and swap, because its plan changed; blocks. Where that fails the old one
        serves on, and its reason tells why. Raises ModelNotFound, ModelNotReady."""
        self._order(partial(self._keeper.ask_refresh, version=version), name, timeout_s)

    def close(self) -> None:
        """Stop watching and loading, close every served version without draining; idempotent.

        A version just being opened is waited for a few seconds; its own thread closes it where that takes longer.
        """
        with self._order_lock:
            self._is_closing = True
        self._first_round.set()  # whoever waits for it must not keep the daemon from ending
        self._watcher.stop()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            if (entry := self._keeper.loading) is not None:
                self._loader.leave(entry.name, entry.version)
        else:
            self._shut()
        deadline = time.monotonic() + _JOIN_S
        for thread in tuple(self._retiring):
            thread.join(max(0.0, deadline - time.monotonic()))

    def step(self) -> float:
        """One look at the disk and all that follows from it; the seconds until the next is due. Loader thread only."""
        while self._drained:
            self._keeper.drained(self._drained.popleft())
        self._keeper.scan()
        while self._commands:
            command = self._commands.popleft()
            try:
                command.ask(command.name)
            except InferdError as error:
                command.done.set_exception(error)
            else:
                self._pending.append(command)
        begin = self._clock()
        is_waiting = self._keeper.tend(lambda: bool(self._commands) or self._is_closing)
        end = self._clock()
        self._pending = [command for command in self._pending if not self._settle(command)]
        if self._commands or self._drained:
            return 0.0
        # Only waiting counts: while one model loads slowly, another may still have to settle.
        self._waited_since = end if self._waited_since is None else self._waited_since + (end - begin)
        if not is_waiting or end - self._waited_since > _FIRST_ROUND_SETTLES * self._settle_s:
            self._first_round.set()
        if is_waiting:
            return self._settle_s
        return POLL_S if self._watcher.is_failing else self._rescan_s

    def _run(self) -> None:
        while not self._is_closing:
            self._wake.clear()
            try:
                pause_s: float | None = self.step()
                if not self._is_watching and pause_s == self._rescan_s:
                    pause_s = None  # unwatched folders are looked at when somebody asks
            except Exception as error:
                log.exception("looking after the repository failed; it goes on")
                self._give_up(LoadFailed(f"looking after the repository failed: {type(error).__name__}: {error}"))
                pause_s = self._rescan_s
            if not self._is_closing:
                self._wake.wait(pause_s)
        self._shut()

    def _settle(self, command: _Command) -> bool:
        """Whether the command is over; its caller knows, then."""
        try:
            if not self._keeper.is_done(command.name):
                return False
            command.done.set_result(None)
        except InferdError as error:
            command.done.set_exception(error)
        return True

    def _order(self, ask: Callable[[str], None], name: str, timeout_s: float) -> None:
        command = _Command(ask, name)
        with self._order_lock:
            if self._is_closing:
                raise Closed("the repository is closed")
            self._commands.append(command)
        self._wake.set()
        try:
            command.done.result(timeout_s)
        except TimeoutError:
            raise LoadFailed(f"model {name!r}: not done within {timeout_s:.0f} s; it goes on") from None

    def _publish(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def _retire(self, entry: Entry | None, loaded: Loaded) -> None:
        """Drain and close on a thread of its own, so that a slow drain delays no loading."""
        thread = threading.Thread(target=self._drain, args=(entry, loaded), name="inferd-drain", daemon=True)
        self._retiring.add(thread)
        thread.start()

    def _drain(self, entry: Entry | None, loaded: Loaded) -> None:
        try:
            if not loaded.served.drain(self._drain_s):
                log.warning("%s: draining took too long; what was left is refused", loaded.files.name)
            loaded.served.close()
        except Exception:
            log.exception("closing %s failed", loaded.files.name)
        finally:
            if entry is not None:
                self._drained.append(entry)
                self._wake.set()
            self._retiring.discard(threading.current_thread())

    def _shut(self) -> None:
        """Close all that serves and answer everybody who waits. By whichever thread is the last to hold the keeper."""
        for loaded in self._keeper.loaded():
            loaded.served.close()
        self._snapshot = Snapshot()
        self._give_up(Closed("the repository is closed"))

    def _give_up(self, error: InferdError) -> None:
        """Answer every command with an error."""
        waiting = [*self._pending, *self._commands]
        self._pending.clear()
        self._commands.clear()
        for command in waiting:
            if not command.done.done():
                command.done.set_exception(error)

    def _absence(self, name: str, version: int | None) -> InferdError:
        """Why there is nothing to serve."""
        known = self._snapshot.known.get(name)
        if not known:
            return ModelNotFound(f"there is no model {name!r}")
        if version is None:
            told = "; ".join(
                f"version {d.version} is {d.state.value}" + (f": {d.reason}" if d.reason else "") for d in known
            )
            return ModelNotReady(f"model {name!r} is not ready: {told}")
        for d in known:
            if d.version == version:
                why = f": {d.reason}" if d.reason else ""
                return ModelNotReady(f"model {name!r} version {version} is {d.state.value}{why}")
        return ModelNotFound(f"model {name!r} has no version {version}, only {_numbers(known)}")


def _numbers(known: Sequence[ModelDescription]) -> str:
    return ", ".join(str(description.version) for description in known)
