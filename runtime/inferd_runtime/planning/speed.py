"""How fast an open candidate is: one row alone, more rows in one run, and all its callers at once.

All figures are timed in the child that has the session. Made of measured runs only: nothing is extrapolated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from inferd_runtime.engines.host import Measured
from inferd_runtime.planning.evidence import Candidate
from inferd_runtime.planning.hosts import NamedSession
from inferd_runtime.planning.inputs import MAX_BYTES, Samples

Clock = Callable[[], float]
Curve = tuple[tuple[int, float], ...]

# The fewest rows whose speed is this near the best are best; gathering has to gain so much over single rows.
NEAR_BEST = 0.95
LEAST_GAIN = 1.05


@dataclass(frozen=True, slots=True)
class Speed:
    """Measures `session`, which is `candidate` opened. `max_batch` 0: rows cannot be gathered; `batch` above 0 is how
    many the settings want to be. Everything may raise what a run raises, and HostDied."""

    session: NamedSession
    candidate: Candidate
    samples: Samples
    max_batch: int
    batch: int
    clock: Clock

    def alone(self, seconds: float) -> Measured:
        """One row, one caller."""
        return self.session.measure(self.samples.stacked(1), seconds=seconds)

    def curve(self, alone_us: float, seconds: float) -> Curve:
        """(rows, median microseconds of one run) from one row on, as far as the time and the gain go."""
        curve = [(1, alone_us)]
        sizes = self._sizes()
        share_s = seconds / max(1, len(sizes))
        end_s = self.clock() + 2 * seconds  # the first run of a size is not counted, and may take long
        for rows in sizes:
            last_rows, last_us = curve[-1]
            if self.clock() + 2e-6 * last_us * rows / last_rows > end_s:
                break
            curve.append((rows, self.session.measure(self.samples.stacked(rows), seconds=share_s).p50_us))
            speeds = _speeds(curve)
            if max(list(speeds.values())[-2:]) < NEAR_BEST * max(speeds.values()):
                break
        return tuple(curve)

    def full(self, curve: Curve, seconds: float) -> tuple[int, float]:
        """The best batch (0 where there is none to gather), and the rows a second of all callers at once with it."""
        if not self.max_batch:
            return 0, self.saturated(0, seconds)
        best = self._promising(curve)
        if best == 1 or self.batch or self.candidate.rows:
            return best, self.saturated(best, seconds)
        single, many = (self.saturated(rows, seconds / 2) for rows in (1, best))
        return (best, many) if many >= LEAST_GAIN * single else (1, single)

    def saturated(self, batch: int, seconds: float) -> float:
        """Rows a second of all callers at once. Gathered batches differ in size and some engines pay for every change,
        so sizes change here too, unless the candidate was compiled for one."""
        sizes = (batch, batch - 1) if batch > 1 and not self.candidate.rows else (max(1, batch),)
        callers = 1 if self.candidate.inline else self.candidate.streams
        measured = self.session.measure(*map(self.samples.stacked, sizes), seconds=seconds, callers=callers)
        return measured.runs_per_s * sum(sizes) / len(sizes)

    def _sizes(self) -> list[int]:
        """Batches worth a look beyond one row: what it is compiled for, else powers of two and the most allowed."""
        if self.candidate.rows:
            return [self.candidate.rows] if self.candidate.rows > 1 else []
        most = min(self.batch or self.max_batch, self.max_batch, max(1, MAX_BYTES // max(1, self.samples.row_bytes)))
        sizes = {1 << power for power in range(1, most.bit_length())} | {most}
        return sorted(sizes - {0, 1})

    def _promising(self, curve: Curve) -> int:
        """What the settings or the compilation say, else the fewest rows near the best speed."""
        if self.batch or self.candidate.rows:
            return self.candidate.rows or curve[-1][0]
        speeds = _speeds(curve)
        return min(rows for rows, speed in speeds.items() if speed >= NEAR_BEST * max(speeds.values()))


def _speeds(curve: Curve | list[tuple[int, float]]) -> dict[int, float]:
    return {rows: rows / run_us for rows, run_us in curve}
