"""The search: which candidates are tried, for how long, and in what order, within a budget of seconds."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from inferd_runtime.planning.evidence import Candidate, Inputs, Trial


class Trier(Protocol):
    """Tries candidates of one model version; one thread at a time. Whatever a candidate does is its trial's outcome:
    nothing here raises for it."""

    @property
    def reference(self) -> str:
        """What answers are compared with, in words; empty before the first trial."""

    @property
    def inputs(self) -> Inputs:
        """Where the inputs come from; known after the first trial."""

    def try_out(self, candidate: Candidate, *, seconds: float, is_first: bool) -> Trial:
        """Open `candidate`, unless it is open still, and measure it for about `seconds`; opening comes on top.

        `is_first`: accuracy, memory, compile time and the curve are wanted too, and `best_batch` is found. Without it
        the candidate was measured before: the same again for `run_us`, `run_p95_us` and `rows_per_s` at the same
        `best_batch`, figures of these seconds alone; what is not measured again may stay 0. A curve goes as far as the
        time and the gain do.
        """

    def keep(self, candidates: Collection[Candidate]) -> None:
        """Only these may be tried again: every other session is closed now. Kept ones stay open as far as memory
        allows, so that trying them in turn costs no compiling."""

    def close(self) -> None:
        """Free everything, children first; idempotent."""
