"""How many rows a batch of one lane gathers: as many as pay, fewer after missed deadlines.

What pays is read from the lane's profile, which every run corrects. A batch in which a deadline was missed takes a
tenth off the limit; a row comes back with every stretch of batches in time.
"""

from __future__ import annotations

import threading

from inferd_runtime.scheduling.profile import Profile

_BACK_OFF = 0.9
# So many batches in time give one row back.
_CLEAN_BATCHES = 32
# After figures are worked out, batches go uncounted for so long: those of micro-models are many and alike.
_PAUSE_NS = 20_000_000


class Sizing:
    """The size of one lane's batches, up to `most` rows. Any thread may call."""

    def __init__(self, profile: Profile, most: int) -> None:
        self.profile = profile
        self.rows = profile.useful_rows(most)
        self._most = most
        self._useful = self.rows
        self._limit = float(most)
        self._clean = 0
        self._pause_ends_ns = 0
        self._lock = threading.Lock()  # guards all that changes, the profile too

    def ran(self, rows: int, took_ns: int, now_ns: int, is_late: bool) -> None:
        """A batch of so many rows took so long; `is_late`: a deadline passed while it ran."""
        if now_ns < self._pause_ends_ns and not is_late:
            return
        with self._lock:
            if self.profile.add(rows, took_ns, now_ns):
                self._useful = self.profile.useful_rows(self._most)
                self._pause_ends_ns = now_ns + _PAUSE_NS
            if is_late and rows > 1:
                self._limit = max(1.0, self._bound() * _BACK_OFF)
                self._clean = 0
            elif self._limit < self._most:
                self._recover()
            self.rows = int(self._bound())

    def _recover(self) -> None:
        self._clean += 1
        if self._clean == _CLEAN_BATCHES:
            self._limit = min(self._limit + 1.0, float(self._most))
            self._clean = 0

    def _bound(self) -> float:
        return min(self._limit, float(self._useful))
