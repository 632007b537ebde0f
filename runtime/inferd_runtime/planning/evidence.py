"""What was measured of one model on this machine, and what was chosen of it: plain data, as it is stored and shown."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Outcome = Literal["measured", "vetoed", "failed", "skipped"]
Inputs = Literal["golden", "calibration", "generated"]
# A file that says less or more is damaged.
Shared = Annotated[int, Meta(ge=1, le=4096)]
Count = Annotated[int, Meta(ge=0)]


class Candidate(Struct, frozen=True):
    """One way to run a model. `rows` > 0: compiled for exactly so many rows; `inline`: on the submitting thread."""

    engine: str
    device: str
    variant: str
    precision: str
    streams: Shared
    threads: Shared
    rows: Count = 0
    inline: bool = False

    def __str__(self) -> str:
        words = [self.engine, self.device, self.variant, "" if self.precision == "auto" else self.precision]
        words += [f"{self.streams}x{self.threads}", f"rows={self.rows}" if self.rows else ""]
        return " ".join(filter(None, [*words, "inline" if self.inline else ""]))


def build_of(candidate: Candidate) -> tuple[str, str, str, str]:
    """What candidates share that differ in shape alone: the same file, compiled by the same engine for the same device
    and precision."""
    return candidate.engine, candidate.device, candidate.variant, candidate.precision


class Trial(Struct, frozen=True):
    """What came of one candidate.

    "measured"; "vetoed" (`reason` says by what: accuracy, settings); "failed" (refused, crashed, hung, out of memory,
    NaN); "skipped" (the time ended first). `run_us` and `run_p95_us` are of one row alone, `curve` has (rows, median
    microseconds of one run). `rows_per_s` is with `streams` callers at once and `best_batch` rows a run, 0 where there
    is no batch dimension. `error` is the distance from the reference in terms of `metric`. `rounds` counts how often it
    was measured.
    """

    candidate: Candidate
    outcome: Outcome
    reason: str = ""
    run_us: float = 0.0
    run_p95_us: float = 0.0
    curve: tuple[tuple[int, float], ...] = ()
    rows_per_s: float = 0.0
    best_batch: Count = 0
    memory_bytes: int = 0
    compile_ms: float = 0.0
    error: float = 0.0
    metric: str = ""
    rounds: int = 0


class Evidence(Struct, frozen=True):
    """All trials of one model version, the choice and why. `chosen` and `idle` are candidates as text, empty for none.

    `key` says what the figures hold for: the model's content, its settings, the engines and the machine.
    """

    key: str
    objective: str
    reference: str
    inputs: Inputs
    trials: tuple[Trial, ...]
    chosen: str
    idle: str
    reason: str
    budget_s: float
    took_s: float
    made_at_s: float


class PlanState(Struct, frozen=True):
    """How far the measuring of a served version is. `now` is the candidate under trial; `done` of `total` are over."""

    state: Literal["off", "static", "queued", "measuring", "measured"]
    done: int = 0
    total: int = 0
    now: str = ""
    evidence: Evidence | None = None
