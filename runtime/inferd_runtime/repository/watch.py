"""Waking the loader when something under the repository roots changes.

inotify by way of watchfiles, in one thread. Roots that do not exist, or that are replaced, are watched once they are
there. Where inotify fails, `is_failing` is true and the owner has to look by itself more often.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from watchfiles import watch

log = logging.getLogger("inferd.repository")

_DEBOUNCE_MS = 200
_STEP_MS = 100


class Watcher:
    """Calls `on_change` soon after anything changed, from its own thread."""

    def __init__(self, roots: Sequence[Path], on_change: Callable[[], None], *, recheck_s: float = 2.0) -> None:
        self._roots = tuple(roots)
        self._on_change = on_change
        self._recheck_s = recheck_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inferd-watch", daemon=True)
        self.is_failing = False

    def start(self) -> None:
        """Begin; what is there already is not told."""
        self._thread.start()

    def stop(self) -> None:
        """End, within a fraction of a second; idempotent."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            there = self._there()
            if there:
                self._watch(there)
            if not self._stop.wait(self._recheck_s if not there or self.is_failing else 0):
                self._on_change()

    def _watch(self, there: dict[Path, int]) -> None:
        """Watch until stopped, until other roots are there, or until it fails.

        What changed between seeing the roots and watching them is told by nobody, so the first return of the watch
        counts as a change, whatever it says.
        """
        is_first = True
        try:
            for changes in watch(
                *there,
                watch_filter=None,
                stop_event=self._stop,
                debounce=_DEBOUNCE_MS,
                step=_STEP_MS,
                rust_timeout=int(self._recheck_s * 1000),
                yield_on_timeout=True,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                self.is_failing = False
                if changes or is_first:
                    is_first = False
                    self._on_change()
                if self._there() != there:
                    return
        except (OSError, RuntimeError) as error:
            if not self.is_failing:
                log.warning("changes cannot be watched, so folders are looked through every few seconds: %s", error)
            self.is_failing = True
            self._on_change()

    def _there(self) -> dict[Path, int]:
        """The roots that exist, with their inodes."""
        found: dict[Path, int] = {}
        for root in self._roots:
            try:
                found[root] = root.stat().st_ino
            except OSError:
                continue
        return found
