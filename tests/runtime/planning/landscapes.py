"""Landscapes to search: what each candidate would give, recorded on a real machine or made up by a simple model of one.

`Simulated` is the Trier over a landscape: trials cost time on a fake clock, and figures come with the noise of a
machine that is shared: now and then a neighbour takes a core for some seconds, and everything takes longer.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from inferd_runtime.planning.evidence import Candidate, Inputs, Trial, build_of

RECORDED = Path(__file__).parents[2] / "fixtures" / "trials" / "two-cores.csv"

Landscape = Mapping[Candidate, Trial]


@dataclass
class FakeClock:
    """Seconds that pass only when something is told to take them."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def recorded() -> dict[str, dict[Candidate, Trial]]:
    """Model -> candidate -> what was measured on a machine of two cores with ONNX Runtime 1.31 and OpenVINO 2026.4."""
    found: dict[str, dict[Candidate, Trial]] = {}
    with RECORDED.open() as file:
        for row in csv.DictReader(file):
            streams, threads, rows = (int(row[name]) for name in ("streams", "threads", "rows"))
            candidate = Candidate(
                row["engine"], "cpu", row["variant"], row["precision"], streams, threads, rows, row["inline"] == "1"
            )
            found.setdefault(row["model"], {})[candidate] = _trial(candidate, row)
    return found


def _trial(candidate: Candidate, row: Mapping[str, str]) -> Trial:
    if not row["run_us"]:
        return Trial(candidate, "failed", "No conversion rule found", compile_ms=100.0)
    points = (point.split(":") for point in row["curve"].split())
    return Trial(
        candidate,
        "measured",
        run_us=float(row["run_us"]),
        run_p95_us=float(row["run_p95_us"]),
        curve=tuple((int(count), float(us)) for count, us in points),
        rows_per_s=float(row["rows_per_s"]),
        best_batch=int(row["best_batch"]),
        compile_ms=float(row["compile_ms"]),
    )


@dataclass
class Simulated:
    """A Trier over a landscape. `noise` is the spread of figures; a neighbour comes every so many seconds."""

    landscape: Landscape
    clock: FakeClock
    seed: int = 0
    noise: float = 0.02
    neighbour_every_s: float = 8.0
    neighbour_for_s: float = 1.5
    neighbour_slows: float = 1.6
    reference: str = "onnxruntime f32"
    inputs: Inputs = "generated"
    tried: list[tuple[Candidate, bool]] = field(default_factory=list)
    is_closed: bool = False
    before: Callable[[Candidate], None] = lambda candidate: None

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._phase_s = self._random.uniform(0, self.neighbour_every_s)
        self._open: set[Candidate] = set()

    def try_out(self, candidate: Candidate, *, seconds: float, is_first: bool) -> Trial:
        """What the landscape says, as slow and as noisy as life."""
        assert not self.is_closed
        assert is_first == (candidate not in {other for other, _ in self.tried})
        self.before(candidate)
        self.tried.append((candidate, is_first))
        truth = self.landscape[candidate]
        if candidate not in self._open:
            self.clock.now_s += truth.compile_ms / 1000
        if truth.outcome != "measured":
            return truth
        self._open.add(candidate)
        slow = self._slowness()
        self.clock.now_s += seconds * (1.3 if is_first else 1.0)
        return replace(
            truth,
            run_us=truth.run_us * slow * self._spread(),
            rows_per_s=truth.rows_per_s / slow / self._spread(),
            curve=truth.curve if is_first else (),
            rounds=1,
        )

    def keep(self, candidates: Collection[Candidate]) -> None:
        """Close all others."""
        self._open &= set(candidates)

    def close(self) -> None:
        """Nothing is tried after this."""
        self.is_closed = True

    def _slowness(self) -> float:
        is_visited = (self.clock.now_s + self._phase_s) % self.neighbour_every_s < self.neighbour_for_s
        return self.neighbour_slows if is_visited else 1.0

    def _spread(self) -> float:
        return 1.0 + abs(self._random.gauss(0, self.noise))


@dataclass(frozen=True)
class Build:
    """What all shapes of one compiled file have in common. `shared` is the part of the work that threads share,
    `batch_share` the part that all rows of a run share."""

    work_us: float
    shared: float
    batch_share: float
    fixed_gain: float

    def run_us(self, one: Candidate, rows: int) -> float:
        """One run alone. A thread more is some microseconds more."""
        work_us = self.work_us / (self.fixed_gain if one.rows else 1.0)
        work_us *= self.batch_share + (1 - self.batch_share) * max(rows, one.rows)
        return work_us * (1 - self.shared + self.shared / one.threads) + 8 * math.log2(one.threads) + 5


def made_up(candidates: Collection[Candidate], seed: int, *, cores: int) -> dict[Candidate, Trial]:
    """A landscape of some model for these candidates. Streams slow each other down."""
    chance = random.Random(seed)
    work_us, batch_share, crowding = 10 ** chance.uniform(1.5, 5), chance.uniform(0, 0.4), chance.uniform(0, 0.6)
    builds: dict[tuple[str, ...], tuple[Build, float]] = {}
    found: dict[Candidate, Trial] = {}
    for one in candidates:
        if build_of(one) not in builds:
            speed, shared, gain = chance.lognormvariate(0, 0.6), chance.uniform(0.6, 0.98), chance.uniform(1, 1.3)
            compile_ms = chance.uniform(100, 1000) * (1.0 if one.engine == "openvino" else 0.2)
            builds[build_of(one)] = Build(work_us / speed, shared, batch_share, gain), compile_ms
        build, compile_ms = builds[build_of(one)]
        curve = tuple((rows, build.run_us(one, rows)) for rows in (1, 2, 4, 8, 16) if rows >= one.rows)
        crowd = 1 + crowding * (one.streams - 1) / cores
        rates = {rows: rows * one.streams / us * 1e6 / crowd for rows, us in curve}
        best = one.rows or min(rows for rows, rate in rates.items() if rate >= 0.95 * max(rates.values()))
        found[one] = Trial(
            one,
            "measured",
            run_us=build.run_us(one, 1),
            run_p95_us=build.run_us(one, 1) * 1.1,
            curve=curve,
            rows_per_s=rates[best],
            best_batch=best,
            compile_ms=compile_ms,
        )
    return found
