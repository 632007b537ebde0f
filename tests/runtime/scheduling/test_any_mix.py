"""Any mix of jobs, through workers and inline: each is settled exactly once, with its own right answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd_runtime.errors import Cancelled, Closed, DeadlineExceeded, EngineFault, InferdError, Overloaded
from inferd_runtime.job import Array
from inferd_runtime.scheduling.budget import ByteBudget, CoreBudget
from inferd_runtime.spec import Shape
from inferd_runtime.stats import ModelStats
from tests.runtime.scheduling.sessions import FREE, DoublingSession, Receiver, assert_right, eventually, job, make_lane


@dataclass(frozen=True)
class Step:
    """One caller: what they send and how they behave. `is_poison`: their values fail the engine. `left_us`: until the
    deadline, 0 for none."""

    rows: int
    width: int
    outputs: tuple[str, ...]
    is_poison: bool
    cancels: int  # after so many further callers; negative: never
    left_us: int
    principal: str
    priority: int
    turns: int


IDLE = Shape(streams=1, threads=2, batch=4, rows=0, run_us=10.0)
steps = st.lists(
    st.builds(
        Step,
        rows=st.integers(1, 5),
        width=st.sampled_from([1, 2, 2, 2, 3]),
        outputs=st.sampled_from([(), (), ("total",), ("double",), ("total", "double")]),
        is_poison=st.sampled_from([False] * 9 + [True]),
        cancels=st.sampled_from([-1, -1, -1, 0, 1, 3]),
        left_us=st.sampled_from([0] * 6 + [-1, 20, 200, 1_000_000]),
        principal=st.sampled_from("ab"),
        priority=st.integers(0, 2),
        turns=st.integers(0, 2),
    ),
    max_size=40,
)


def fail_on_poison(x: Array, answers: list[Array]) -> list[Array]:
    if np.isnan(x).any():
        raise EngineFault("poison")
    return answers


def play(
    mix: list[Step], *, is_inline: bool, streams: int, max_jobs: int, ends_by_close: bool, has_idle: bool = False
) -> None:
    """Send the whole mix through one lane and hold every promise against what came back."""
    due: list[Callable[[], None]] = []
    idle_session = DoublingSession(fail_on_poison) if has_idle else None
    session, receiver, stats = DoublingSession(fail_on_poison), Receiver(), ModelStats("model", 1)
    held, budget = ByteBudget(1 << 20), CoreBudget(2)
    lane = make_lane(
        session,
        receiver,
        spec=FREE,
        budget=budget,
        held=held,
        stats=stats,
        max_jobs=max_jobs,
        streams=streams,
        batch=8,
        defer=due.append if is_inline else None,
        idle_session=idle_session,
        idle=IDLE if has_idle else None,
    )
    accepted, refused = [], []
    all_jobs = []
    for i, step in enumerate(mix):
        value = float("nan") if step.is_poison else float(i)
        one = job(
            *[value] * step.rows,
            width=step.width,
            outputs=step.outputs,
            deadline_ns=time.monotonic_ns() + step.left_us * 1000 if step.left_us else None,
            principal=step.principal,
            priority=step.priority,
        )
        all_jobs.append(one)
        try:
            lane.submit(one)
            accepted.append(one)
        except (Overloaded, Cancelled, DeadlineExceeded) as error:
            refused.append(error)
        for earlier, other in zip(mix, all_jobs, strict=False):
            if 0 <= earlier.cancels == i - all_jobs.index(other):
                other.cancel()
        for _ in range(step.turns):
            if due:
                due.pop(0)()
    if ends_by_close:
        lane.close()
    while due:
        due.pop(0)()
    assert lane.drain(20)
    lane.close()

    assert sorted(map(id, receiver.jobs)) == sorted(map(id, accepted))
    kinds: tuple[type[InferdError], ...] = (Cancelled, EngineFault, DeadlineExceeded)
    if ends_by_close:
        kinds += (Closed,)
    for one in accepted:
        if one.error is None:
            assert_right(one)
        else:
            assert isinstance(one.error, kinds)
            if isinstance(one.error, EngineFault):
                assert np.isnan(one.inputs["x"]).any()
            if isinstance(one.error, Cancelled):
                assert one.is_cancelled
            if isinstance(one.error, DeadlineExceeded):
                assert one.deadline_ns is not None
    seen = stats.snapshot()
    good = [one for one in accepted if one.error is None]
    assert seen.success_count == len(good) == sum(seen.latency_counts)
    assert (
        len(accepted) + len(refused)
        == len(mix)
        == (seen.success_count + seen.fail_count + seen.cancelled_count + seen.late_count + seen.rejected_count)
    )
    assert (held.held, lane.waiting, lane.running) == (0, 0, 0)
    eventually(lambda: budget.used == 0)  # a worker may give back after all is delivered
    assert session.is_closed
    assert idle_session is None or (idle_session.is_closed and idle_session.most_running <= 1)


@settings(deadline=None, max_examples=60)
@given(steps, st.sampled_from([2, 100]), st.booleans())
def test_inline(mix: list[Step], max_jobs: int, ends_by_close: bool) -> None:
    """On the submitting thread."""
    play(mix, is_inline=True, streams=1, max_jobs=max_jobs, ends_by_close=ends_by_close)


@settings(deadline=None, max_examples=60)
@given(steps, st.integers(1, 3), st.sampled_from([2, 100]), st.booleans(), st.booleans())
def test_workers(mix: list[Step], streams: int, max_jobs: int, ends_by_close: bool, has_idle: bool) -> None:
    """On workers that run as they like, with and without a session for lone jobs."""
    play(mix, is_inline=False, streams=streams, max_jobs=max_jobs, ends_by_close=ends_by_close, has_idle=has_idle)
