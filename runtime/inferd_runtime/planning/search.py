"""The search: which candidates are tried, for how long, and in what order, within a budget of seconds.

Two parts. The screening tries candidates briefly: one of every build, then those that could still beat the best, judged
by their relatives (`promise`). A look at the leader after each trial tells whether a neighbour was in the way. In the
final those that came close run in turns, so that noise meets all of them alike, and who falls behind is dropped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from inferd_runtime.errors import Closed
from inferd_runtime.planning.choose import choose, eligible, main_cost
from inferd_runtime.planning.evidence import Candidate, Inputs, Trial, build_of
from inferd_runtime.planning.promise import WORTHLESS, promise

# The part of the budget for the screening; a final needs the rest.
SCREENING = 0.7
# Who could be this much of the best is tried: screening figures are no better than that.
WORTH_A_TRY = 0.85
LEAST_S, MOST_S = 0.2, 1.0
# A look at the leader takes this part of a trial.
LOOK = 0.5
# Rounds so far apart have not all met the same neighbour.
APART_S = 3.0
# How far behind the first a candidate may be and still take part in the next round of the final.
REACHES = (1.3, 1.2, 1.12, 1.08, 1.06)
FINALISTS = 5
OUT_OF_TIME = "the time ended first"

Progress = Callable[[int, int, str], None]


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


class Search:
    """One search over one list of candidates. `thorough`: tries all that is not hopeless, and more finalists.

    `progress(done, total, now)` is told of every trial before it begins; `should_stop` is asked then.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        trier: Trier,
        *,
        objective: str,
        budget_s: float,
        thorough: bool = False,
        progress: Progress = lambda done, total, now: None,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._candidates = candidates
        self._trier = trier
        self._objective = objective
        self._budget_s = budget_s
        self._thorough = thorough
        self._progress = progress
        self._should_stop = should_stop
        self._clock = clock
        self._begin_s = clock()
        self._rounds: dict[Candidate, list[Trial]] = {}
        self._took_s: dict[Candidate, float] = {}  # the first trial
        self._when_s: dict[Candidate, tuple[float, float]] = {}  # the first and the last trial
        self._leader: Candidate | None = None
        self._look: Trial | None = None  # the last one
        self._looks: dict[Candidate, list[Trial]] = {}  # before and after the first trial, at who led then
        self._awaited = 0  # candidates still worth a try

    def run(self) -> list[Trial]:
        """Every candidate's trial, in the order in which they were tried, the skipped ones last. Raises Closed when it
        was stopped."""
        self._screen()
        for number, reach in enumerate(REACHES):
            if not self._play(number, self._contenders(reach)):
                break
            self._screen()  # a better figure of one raises hopes for its relatives
        return self._trials() + self._skipped()

    def _screen(self) -> None:
        """Try candidates briefly, each between two looks at the leader."""
        seconds = min(MOST_S, max(LEAST_S, self._budget_s / 80))
        while (candidate := self._next()) is not None:
            self._try(candidate, seconds, str(candidate))
            looks = [self._look]
            if self._leader is not None:
                self._look = self._try(self._leader, seconds * LOOK, str(candidate))
            self._looks[candidate] = [look for look in (*looks, self._look) if look is not None]
            chosen = choose(self._fair(), self._objective).chosen
            leader = chosen.candidate if chosen is not None else None
            if leader is not None and leader != self._leader:
                self._look = self._try(leader, seconds * LOOK, f"{leader}, once more")
            self._leader = leader
            self._trier.keep(self._contenders(REACHES[0]))

    def _play(self, number: int, contenders: Sequence[Candidate]) -> bool:
        """One round of the final, there or back. False when there is no time for it, or nothing to play for."""
        left_s = self._begin_s + self._budget_s - self._clock()
        seconds = min(MOST_S, left_s / (max(1, len(contenders)) * (len(REACHES) - number)))
        is_decided = len(contenders) < 2 and all(map(self._is_settled, contenders))
        if is_decided or seconds < LEAST_S / 2:
            return False
        self._trier.keep(contenders)
        for candidate in contenders if number % 2 else contenders[::-1]:
            self._try(candidate, seconds, f"round {number + 1} of {len(REACHES)}: {candidate}")
        return True

    def _next(self) -> Candidate | None:
        """Of the untried for which there is time the one most likely to win; the list's order breaks ties."""
        trials, least = self._fair(), WORTHLESS if self._thorough else WORTH_A_TRY
        seen = {candidate: promise(candidate, trials, self._objective) for candidate in self._untried()}
        worthy = [candidate for candidate, promised in seen.items() if promised.hope > least]
        self._awaited = len(worthy)
        end_s = self._begin_s + SCREENING * self._budget_s
        ready = [c for c in worthy if not trials or self._clock() + self._expected_s(c) <= end_s]
        return max(ready, key=lambda candidate: seen[candidate].rank, default=None)

    def _untried(self) -> list[Candidate]:
        return [candidate for candidate in self._candidates if candidate not in self._rounds]

    def _expected_s(self, candidate: Candidate) -> float:
        """How long a trial may take: as long as the last of its build, else of its engine and device."""
        build = build_of(candidate)
        for width in (len(build), 2):
            for other in reversed(self._took_s):
                if build_of(other)[:width] == build[:width]:
                    return self._took_s[other]
        return 0.0

    def _contenders(self, reach: float) -> list[Candidate]:
        """Who may yet be chosen, or be the idle shape of who is: each in turn is what would be chosen without those
        before it."""
        left = eligible([trial for trial in self._fair() if trial.outcome == "measured"])
        limit = 0.0
        found: dict[Candidate, None] = {}
        while len(found) < FINALISTS * (1 + self._thorough):
            choice = choose(left, self._objective)
            if choice.chosen is None:
                break
            cost = main_cost(self._objective)(choice.chosen)
            limit = limit or cost * reach
            if cost > limit:
                break
            found |= {trial.candidate: None for trial in (choice.chosen, choice.idle) if trial is not None}
            left.remove(choice.chosen)
        return list(found)

    def _try(self, candidate: Candidate, seconds: float, now: str) -> Trial:
        if self._should_stop():
            raise Closed("measuring was stopped")
        self._progress(len(self._rounds), len(self._rounds) + self._awaited, now)
        begin_s = self._clock()
        is_first = candidate not in self._rounds
        trial = self._trier.try_out(candidate, seconds=seconds, is_first=is_first)
        if trial.outcome == "measured" and not (0 < trial.run_us < math.inf and 0 < trial.rows_per_s < math.inf):
            trial = replace(trial, outcome="failed", reason="its figures make no sense")
        if is_first:
            self._took_s[candidate] = self._clock() - begin_s
        self._rounds.setdefault(candidate, []).append(trial)
        self._when_s[candidate] = (self._when_s.get(candidate, (begin_s, begin_s))[0], begin_s)
        return trial

    def _trials(self) -> list[Trial]:
        return [_summary(rounds) for rounds in self._rounds.values()]

    def _fair(self) -> list[Trial]:
        """The trials as they would stand had nobody been in the way: what was measured while the leader was slower than
        it usually is gets that much back, until more rounds tell."""
        usual = {trial.candidate: trial for trial in self._trials()}
        return [
            trial if self._is_settled(candidate) else _relieved(trial, self._looks.get(candidate, ()), usual)
            for candidate, trial in usual.items()
        ]

    def _is_settled(self, candidate: Candidate) -> bool:
        first_s, last_s = self._when_s[candidate]
        return last_s - first_s >= APART_S

    def _skipped(self) -> list[Trial]:
        trials, found = self._fair(), []
        for candidate in self._untried():
            seen = promise(candidate, trials, self._objective)
            found.append(Trial(candidate, "skipped", OUT_OF_TIME if seen.hope > WORTH_A_TRY else seen.why))
        return found


def _summary(rounds: Sequence[Trial]) -> Trial:
    """One trial of several. A neighbour's noise only ever makes things slower, so of all figures the one at the better
    quarter stands. One round that failed is enough not to be trusted."""
    failed = next((trial for trial in rounds if trial.outcome != "measured"), None)
    if failed is not None:
        return replace(failed, rounds=len(rounds))
    return replace(
        rounds[0],
        run_us=_quarter([trial.run_us for trial in rounds]),
        run_p95_us=_quarter([trial.run_p95_us for trial in rounds]),
        rows_per_s=-_quarter([-trial.rows_per_s for trial in rounds]),
        rounds=len(rounds),
    )


def _quarter(figures: Sequence[float]) -> float:
    return sorted(figures)[(len(figures) - 1) // 4]


def _relieved(trial: Trial, looks: Sequence[Trial], usual: Mapping[Candidate, Trial]) -> Trial:
    slow = 1.0
    for look in looks:
        leader = usual[look.candidate]
        if trial.outcome == look.outcome == leader.outcome == "measured":
            slow = max(slow, look.run_us / leader.run_us, leader.rows_per_s / look.rows_per_s)
    return replace(trial, run_us=trial.run_us / slow, rows_per_s=trial.rows_per_s * slow)
