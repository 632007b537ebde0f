"""How long a run takes, by its rows: the curve that planning measured, kept alive by the runs that follow.

Run times are kept at 1, 2, 4, 8 ... rows and read off along straight lines between. Where no run was seen lately, the
planned curve stands in, stretched by as much as the nearest fewer rows have drifted from theirs. Without a curve hope
stands in: any number of rows takes as long as one, so that sizes are tried and then known. Not for several threads.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

# Runs remembered at each number of rows, and the fewest that count.
WINDOW = 64
_LEAST_RUNS = 5
# What was not seen for so long, or for so many of its own runs, is forgotten: a size that looked bad while the machine
# was disturbed is tried again, and trying takes no more than a tenth of the time.
FRESH_NS = 2_000_000_000
_FRESH_RUNS = 50
# Figures are worked out anew after so many runs, and more often at first.
_REFRESH_RUNS = 16
# The share of runs that are not to take longer than `slow_ns`.
_SLOW = 0.95
# Rows are run together where that serves at least this much more, and then as few as come this close to the best: the
# first of them waits for the last.
LEAST_GAIN = 1.05
_NEAR_BEST = 0.97
# What a batch costs beside its run: claims, gathering, settling, waking its callers.
_BESIDE_NS = 50_000.0


class _Window:
    """The last run times at one number of rows."""

    __slots__ = ("at", "is_changed", "runs", "seen_ns", "slow", "typical")

    def __init__(self) -> None:
        self.runs: list[float] = []
        self.at = 0
        self.seen_ns = 0
        self.is_changed = False
        self.typical = self.slow = 0.0

    def add(self, took_ns: float, now_ns: int) -> None:
        if self._is_old(now_ns):
            self.runs.clear()
            self.at = 0
        if len(self.runs) < WINDOW:
            self.runs.append(took_ns)
        else:
            self.runs[self.at] = took_ns
            self.at = (self.at + 1) % WINDOW
        self.seen_ns = now_ns
        self.is_changed = True

    def sum_up(self) -> None:
        if self.is_changed:
            ordered = sorted(self.runs)
            self.typical = ordered[len(ordered) // 2]
            self.slow = ordered[int(_SLOW * len(ordered))]
            self.is_changed = False

    def is_fresh(self, now_ns: int) -> bool:
        return len(self.runs) >= _LEAST_RUNS and not self._is_old(now_ns)

    def _is_old(self, now_ns: int) -> bool:
        return now_ns - self.seen_ns > max(FRESH_NS, _FRESH_RUNS * self.typical)


class Profile:
    """Run times of one session, in nanoseconds, for 1 to `max_rows` rows and, by proportion, beyond."""

    def __init__(self, curve: Sequence[tuple[int, float]], run_us: float, max_rows: int) -> None:
        steps = (max(1, max_rows) - 1).bit_length() + 1
        planned = _reader(curve or [(1, run_us)])
        self._planned = [1000.0 * planned(1 << step) for step in range(steps)]
        self._windows: list[_Window | None] = [None] * steps
        self._due = 1
        self._added = 0
        self._typical = self._slow = self._planned

    def add(self, rows: int, took_ns: float, now_ns: int) -> bool:
        """A run of `rows` rows took so long; True when the figures were worked out anew."""
        step = min((rows - 1).bit_length(), len(self._windows) - 1)
        if rows != 1 << step:
            took_ns *= self._typical[step] / (self.typical_ns(rows) or 1.0)
        window = self._windows[step]
        if window is None:
            self._windows[step] = window = _Window()
        window.add(took_ns, now_ns)
        self._added += 1
        if self._added < self._due:
            return False
        self._added = 0
        self._due = min(2 * self._due, _REFRESH_RUNS)
        self._refresh(now_ns)
        return True

    def typical_ns(self, rows: int) -> float:
        """What half of the runs of so many rows stay below."""
        return _read(self._typical, rows)

    def slow_ns(self, rows: int) -> float:
        """What nearly all runs of so many rows stay below."""
        return _read(self._slow, rows)

    def useful_rows(self, most: int) -> int:
        """How many rows to run together: the fewest that come near the best rate, and 1 where all gain too little."""
        sizes = [1 << step for step in range(most.bit_length())]
        if sizes[-1] != most:
            sizes.append(most)
        rates = [rows / (self.typical_ns(rows) + _BESIDE_NS) for rows in sizes]
        best = max(rates)
        if best < LEAST_GAIN * rates[0]:
            return 1
        return next(rows for rows, rate in zip(sizes, rates, strict=True) if rate >= _NEAR_BEST * best)

    def rows_within(self, time_ns: float, most: int) -> int:
        """The most rows up to `most` whose runs are nearly all over in that time; 1 where none are."""
        if self.slow_ns(most) <= time_ns:
            return most
        return max(1, bisect_right(range(1, most), time_ns, key=self.slow_ns))

    def _refresh(self, now_ns: int) -> None:
        fresh: list[_Window | None] = []
        for window in self._windows:
            if window is not None and window.is_fresh(now_ns):
                window.sum_up()
                fresh.append(window)
            else:
                fresh.append(None)
        self._typical = self._filled([window.typical if window else None for window in fresh])
        self._slow = self._filled([window.slow if window else None for window in fresh])

    def _filled(self, measured: Sequence[float | None]) -> list[float]:
        """A time for every step: measured, or planned and stretched; more rows never take less."""
        drifts = [took / planned for took, planned in zip(measured, self._planned, strict=True) if took and planned]
        drift = drifts[0] if drifts else 1.0
        filled = []
        longest = 0.0
        for took, planned in zip(measured, self._planned, strict=True):
            if took and planned:
                drift = took / planned
            longest = max(longest, took or planned * drift)
            filled.append(longest)
        return filled


def _read(steps: Sequence[float], rows: int) -> float:
    """The time of so many rows, from those of 1, 2, 4, 8 ..."""
    above = (rows - 1).bit_length()
    if above >= len(steps):
        return steps[-1] * rows / (1 << len(steps) - 1)
    if rows == 1 << above:
        return steps[above]
    few, half = steps[above - 1], 1 << above - 1
    return few + (steps[above] - few) * (rows - half) / half


def _reader(curve: Sequence[tuple[int, float]]) -> Callable[[int], float]:
    """Reads a curve of any rows: straight between its points, by proportion of the last rise beyond them."""
    rows = [point[0] for point in curve]
    took = [point[1] for point in curve]

    def read(at: int) -> float:
        if at <= rows[0] or len(rows) == 1:
            return took[0]
        i = min(bisect_right(rows, at), len(rows) - 1)
        slope = (took[i] - took[i - 1]) / (rows[i] - rows[i - 1])
        return max(took[i - 1] + slope * (at - rows[i - 1]), 0.0)

    return read
