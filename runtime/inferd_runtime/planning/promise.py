"""Promise: how good an untried candidate could be, judged by the trials of its relatives.

Candidates of one build (the same file in the same engine, device and precision) differ in threads, fixed rows and the
thread that runs them. What each of these can gain at most is known roughly; so a trial bounds what its relatives can
do, and whoever cannot win by any bound needs no trial. The bounds err on the side of trying.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inferd_runtime.planning.choose import BALANCED_REACH, eligible, main_cost
from inferd_runtime.planning.evidence import Candidate, Trial, build_of
from inferd_runtime.planning.plan import BALANCED, INLINE_US, LATENCY, THROUGHPUT

WORTHLESS = 0.0
# The rank of a build's first candidate: before all that have relatives, but not before what settles the search.
_FIRST = 1e9
# A build that failed may run with fewer streams, which take less memory: one more try, when there is nothing better.
LAST_CHANCE = 0.9
# What doubling the threads of a stream gains at most: a lone request, and all of them (streams share caches).
THREADS_GAIN, SHARING_GAIN = 2.0, 1.25
# What halving them gains a lone request: waking threads takes long enough to matter where runs are short.
FEWER_GAIN, FEWER_GAIN_SHORT, SHORT_US = 1.15, 2.0, 1000.0
# What fixed rows gain, and what a session for one caller alone gains over one of several streams.
FIXED_GAIN, INLINE_GAIN = 2.0, 2.0
# What handing a job to another thread and back costs at least.
HOP_US = 50.0


@dataclass(frozen=True, slots=True)
class Promise:
    """How many times as good as the best so far a candidate could be, and the sentence that says so. `rank` is high for
    those to try first: who has hope, and close relatives of the best before others."""

    hope: float
    why: str
    rank: float = 0.0


def promise(candidate: Candidate, trials: Sequence[Trial], objective: str) -> Promise:
    """What `trials` promise of `candidate`; no bounds for the first of a build."""
    relatives = [trial for trial in trials if build_of(trial.candidate) == build_of(candidate)]
    if not relatives:
        return Promise(math.inf, "the first of its build", _FIRST)
    known = [trial for trial in relatives if trial.outcome == "measured"]
    if not known:
        why = f"{relatives[0].candidate} was tried and {relatives[0].outcome}"
        return Promise(LAST_CHANCE if _may_fit(candidate, relatives) else WORTHLESS, why)
    if candidate.rows and not _takes_rows(relatives):
        return Promise(WORTHLESS, "its rows cannot be fixed")
    measured = eligible([trial for trial in trials if trial.outcome == "measured"])
    is_inline = measured[0].candidate.inline
    if is_inline and not candidate.inline:
        return Promise(WORTHLESS, "a model this quick runs on the submitting thread")
    least_us = max(_least_us(candidate, trial) for trial in known)
    if candidate.inline and not is_inline and least_us >= INLINE_US:
        return Promise(WORTHLESS, "a run takes too long for the submitting thread")
    if objective == BALANCED and _padded_us(candidate, known) > BALANCED_REACH * min(t.run_us for t in measured):
        return Promise(WORTHLESS, "so many fixed rows hold a lone request up")
    hope = max(_hopes(candidate, known, measured, least_us, objective))
    cost = main_cost(objective)
    close = min(map(cost, measured)) / min(map(cost, known))
    if candidate.inline and not is_inline and close == 1.0 and min(trial.run_us for trial in known) < INLINE_US:
        return Promise(math.inf, "the best so far is quick enough for the submitting thread", math.inf)
    steps = min(_steps(candidate, trial.candidate) for trial in known)
    return Promise(hope, f"judged by its relatives it is {hope:.2f} of the best, at most", hope * close / steps)


def _hopes(
    candidate: Candidate, known: Sequence[Trial], measured: Sequence[Trial], least_us: float, objective: str
) -> Iterator[float]:
    first = max(measured, key=lambda trial: trial.rows_per_s)
    is_of_first = build_of(first.candidate) == build_of(candidate)
    if objective != THROUGHPUT or is_of_first or candidate.inline:
        # What has the most throughput may be joined by an idle shape, which need only beat its own relatives.
        rivals = known if is_of_first and objective != LATENCY else measured
        hop_us = HOP_US if candidate.inline and not first.candidate.inline else 0.0
        yield (min(trial.run_us for trial in rivals) + hop_us) / least_us if least_us else math.inf
    if objective != LATENCY:
        yield min(_most_rows_per_s(candidate, trial) for trial in known) / first.rows_per_s


def _steps(one: Candidate, other: Candidate) -> float:
    """How far apart two of a build are: doublings of threads, and each other thing that differs."""
    doublings = abs(math.log2(one.threads / other.threads))
    return max(1.0, doublings + (one.rows != other.rows) + (one.inline != other.inline))


def _may_fit(candidate: Candidate, failed: Sequence[Trial]) -> bool:
    """Whether fewer streams may do what failed once."""
    is_plain = not (candidate.rows or candidate.inline)
    has_chance = len(failed) == 1 and failed[0].outcome == "failed"
    return is_plain and has_chance and candidate.streams < failed[0].candidate.streams


def _takes_rows(relatives: Sequence[Trial]) -> bool:
    """Whether fixed rows can be: there is a batch dimension, and no relative failed with them."""
    return not any(
        trial.outcome != "measured" if trial.candidate.rows else trial.outcome == "measured" and trial.best_batch == 0
        for trial in relatives
    )


def _least_us(candidate: Candidate, known: Trial) -> float:
    """The least that a lone row could take, as `known` shows; 0 where it shows nothing."""
    if candidate.rows > 1:
        return math.inf  # the other rows would run for nothing
    if known.candidate.rows > 1:
        return 0.0
    steps = math.log2(candidate.threads / known.candidate.threads)
    fewer = FEWER_GAIN_SHORT if known.run_us < SHORT_US else FEWER_GAIN
    gain: float = (THREADS_GAIN if steps > 0 else fewer) ** abs(steps)
    gain *= FIXED_GAIN if candidate.rows != known.candidate.rows else 1.0
    gain *= INLINE_GAIN if candidate.inline else 1.0
    return known.run_us / gain


def _padded_us(candidate: Candidate, known: Sequence[Trial]) -> float:
    """The least that fixed rows could make a lone request wait; 0 where no curve tells."""
    curves = [trial.curve for trial in known if trial.candidate.threads == candidate.threads]
    told = [us for curve in curves for rows, us in curve if 1 < rows <= candidate.rows]
    return max(told, default=0.0) / FIXED_GAIN


def _most_rows_per_s(candidate: Candidate, known: Trial) -> float:
    """The most rows per second that it could do, as `known` shows."""
    one, other = candidate, known.candidate
    steps = math.log2(one.threads / other.threads)
    gain: float = (SHARING_GAIN if steps > 0 else THREADS_GAIN) ** abs(steps)
    gain *= max(1.0, one.streams * one.threads / (other.streams * other.threads))
    if one.rows != other.rows:
        gain *= FIXED_GAIN * _batch_gain(known, one.rows) if one.rows and not other.rows else FIXED_GAIN
    return known.rows_per_s * gain


def _batch_gain(known: Trial, rows: int) -> float:
    """What runs of so many rows do per row, compared with the best number, as far as the curve tells; 1 at most. Half
    believed: some of what is lost there is lost to free rows."""
    gains = {count: count / us for count, us in known.curve if us > 0}
    told = [count for count in gains if count <= rows]
    return math.sqrt(gains[max(told)] / max(gains.values())) if told else 1.0
