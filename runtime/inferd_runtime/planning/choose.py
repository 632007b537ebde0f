"""The choice: of what was measured, the candidate that serves the objective, and why, in words.

A pure function of the trials. Figures within the noise of a shared machine count as equal; then the second figure
decides, and then what is simpler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from inferd_runtime.planning.evidence import Candidate, Trial, build_of
from inferd_runtime.planning.plan import AUTO, BALANCED, INLINE_US, LATENCY, THROUGHPUT

# Figures that differ by less are equal.
NOISE = 1.03
# Balanced: how much longer than the quickest a lone request may take.
BALANCED_REACH = 1.5
# An idle shape is worth its memory where a lone request is over in this part of the time.
IDLE_GAIN = 0.9

_GOALS = {
    LATENCY: "the quickest lone request",
    THROUGHPUT: "the most rows per second",
    BALANCED: f"the most rows per second with a lone request within {BALANCED_REACH:g} times the quickest",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """The trials that the plan rests on; `idle` for a lone request. None: nothing was measured, nothing gained."""

    chosen: Trial | None
    idle: Trial | None
    reason: str


def choose(trials: Iterable[Trial], objective: str, *, spare_bytes: int | None = None) -> Choice:
    """Choose for "latency", "throughput" or "balanced": the best throughput with which a lone request takes at most 1.5
    times as long as it could. `spare_bytes` bounds what two sessions of an idle and a loaded shape may take together.
    """
    every = [trial for trial in trials if trial.outcome == "measured"]
    measured = eligible(every)
    if not measured:
        return Choice(None, None, "No candidate could be measured, so the static rule's plan stays.")

    def idle_of(trial: Trial) -> Trial | None:
        partners = [other for other in measured if _may_pair(trial, other, spare_bytes)]
        quickest = min(partners, key=lambda other: other.run_us, default=trial)
        return quickest if quickest.run_us < IDLE_GAIN * trial.run_us else None

    def lone_us(trial: Trial) -> float:
        # Fixed rows are filled up for few requests, too, and an idle shape takes but the first of those.
        return trial.run_us if trial.candidate.rows > 1 else (idle_of(trial) or trial).run_us

    cost = main_cost(objective)
    pool, costs = measured, (cost, _row_us if objective == LATENCY else lone_us)
    if objective == BALANCED:
        limit_us = min(map(lone_us, measured)) * BALANCED_REACH
        pool = [trial for trial in measured if lone_us(trial) <= limit_us]
    chosen = _best(pool, costs)
    # One shape is enough where nothing but a lone request counts.
    idle = None if objective == LATENCY else idle_of(chosen)
    first = min(pool, key=cost)
    ahead = first if cost(first) < cost(chosen) else None
    has_others = len(measured) < len(every)
    return Choice(chosen, idle, " ".join(_sentences(objective, len(measured), has_others, chosen, idle, ahead)))


def main_cost(objective: str) -> Callable[[Trial], float]:
    """What is to be small, in microseconds: a lone row, or a row of many at saturation."""
    return _run_us if objective == LATENCY else _row_us


def eligible(measured: Sequence[Trial]) -> list[Trial]:
    """Who may be chosen: those on the submitting thread where one is quick enough there, for its saved hop outweighs
    all that streams and threads could gain; else all others; all where there are no others."""
    fit = [trial for trial in measured if trial.candidate.inline and trial.run_us < INLINE_US]
    return fit or [trial for trial in measured if not trial.candidate.inline] or list(measured)


def _may_pair(loaded: Trial, idle: Trial, spare_bytes: int | None) -> bool:
    """Whether `idle` may stand beside `loaded` for lone requests."""
    one, other = loaded.candidate, idle.candidate
    fits = spare_bytes is None or loaded.memory_bytes + idle.memory_bytes <= spare_bytes
    return one != other and build_of(one) == build_of(other) and not (one.inline or other.inline) and fits


def _run_us(trial: Trial) -> float:
    return trial.run_us


def _row_us(trial: Trial) -> float:
    """What a row costs at saturation."""
    return 1e6 / max(trial.rows_per_s, 1e-6)


def _best(trials: Sequence[Trial], costs: Sequence[Callable[[Trial], float]]) -> Trial:
    """The least first cost; within its noise the least second, and so on; within all noise the simplest."""
    for cost in costs:
        least = min(map(cost, trials))
        trials = [trial for trial in trials if cost(trial) <= least * NOISE]
    return min(trials, key=_complexity)


def _complexity(trial: Trial) -> tuple[bool, int, bool, int, str]:
    candidate = trial.candidate
    return (
        candidate.rows > 0,
        candidate.streams * candidate.threads,
        candidate.precision != AUTO,
        trial.memory_bytes,
        str(candidate),
    )


def _sentences(
    objective: str, count: int, has_others: bool, chosen: Trial, idle: Trial | None, ahead: Trial | None
) -> Iterator[str]:
    """`count` candidates could be chosen; `has_others`: some could not, for the thread that they run on."""
    candidates = f"{count} candidate{'s' if count > 1 else ''}{' on the submitting thread' * chosen.candidate.inline}"
    figures = f"{shown_us(chosen.run_us)} for one row, {chosen.rows_per_s:.0f} rows per second"
    yield f"Measured: {chosen.candidate} has {_GOALS[objective]}, of {candidates} ({figures})."
    if ahead is not None:
        yield f"{ahead.candidate} is ahead by no more than the noise."
    if chosen.candidate.inline and chosen.run_us < INLINE_US:
        rest = ", so candidates there do not count" if has_others else ""
        yield f"Runs shorter than {INLINE_US:.0f} us are not worth the way to another thread{rest}."
    elif has_others:
        yield f"Runs on the submitting thread took {INLINE_US:.0f} us or more, which is too long there."
    if idle is not None:
        yield f"A lone request runs as {shape_of(idle.candidate)} instead: {shown_us(idle.run_us)}."


def shape_of(candidate: Candidate) -> str:
    """Streams x threads and fixed rows, as in the candidate's own text."""
    return f"{candidate.streams}x{candidate.threads}" + (f" rows={candidate.rows}" if candidate.rows else "")


def shown_us(us: float) -> str:
    """A time as people read it."""
    return f"{us:.0f} us" if us < 1000 else f"{us / 1000:.3g} ms"
