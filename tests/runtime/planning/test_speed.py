"""How fast a candidate is, on sessions whose speed is told: which runs are made, and what is concluded."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from inferd_runtime.engines.host import Measured
from inferd_runtime.planning import speed
from inferd_runtime.planning.evidence import Candidate
from inferd_runtime.planning.hosts import NamedSession
from inferd_runtime.planning.inputs import Feeds, Samples
from inferd_runtime.planning.speed import Speed


class ToldSession:
    """Runs of `rows` take `run_us(rows)`, and `change_us` more where the run before had another size."""

    def __init__(self, run_us: Callable[[int], float], change_us: float = 0.0) -> None:
        self._run_us = run_us
        self._change_us = change_us
        self.now_s = 0.0
        self.calls: list[tuple[tuple[int, ...], int]] = []

    def measure(self, *turns: Feeds, seconds: float, callers: int = 1) -> Measured:
        sizes = tuple(len(feeds["x"]) for feeds in turns)
        self.calls.append((sizes, callers))
        run_us = sum(map(self._run_us, sizes)) / len(sizes) + (self._change_us if len(sizes) > 1 else 0.0)
        self.now_s += max(seconds, 2e-6 * run_us)
        return Measured(runs=1, p50_us=run_us, p95_us=run_us, runs_per_s=callers * 1e6 / run_us)


def told(
    session: ToldSession,
    *,
    rows: int = 0,
    streams: int = 2,
    inline: bool = False,
    max_batch: int = 64,
    batch: int = 0,
    width: int = 4,
) -> Speed:
    candidate = Candidate("openvino", "cpu", "", "f32", streams, 1, rows, inline)
    samples = Samples("generated", ({"x": np.zeros((1, width), np.float32)},), max_batch > 0)
    return Speed(cast(NamedSession, session), candidate, samples, max_batch, batch, lambda: session.now_s)


def gaining(rows: int) -> float:
    return 1000.0 + 10.0 * rows


def level(rows: int) -> float:
    return 1000.0 * rows


def test_the_curve_goes_on_while_rows_gain() -> None:
    """Powers of two up to the most a request may have, as long as each is faster by the row."""
    curve = told(ToldSession(gaining), max_batch=48).curve(1010.0, 10.0)
    assert [rows for rows, _ in curve] == [1, 2, 4, 8, 16, 32, 48]
    assert curve[3] == (8, 1080.0)


def test_the_curve_ends_where_nothing_is_gained() -> None:
    """Two sizes in a row that are slower than the best by the row are enough."""
    curve = told(ToldSession(lambda rows: 1000.0 * rows**1.2)).curve(1000.0, 10.0)
    assert [rows for rows, _ in curve] == [1, 2, 4]


def test_the_curve_ends_with_the_time() -> None:
    """A size whose run would not fit in what is left is not begun."""
    session = ToldSession(lambda rows: 0.3e6 * rows)
    curve = told(session).curve(0.3e6, 1.0)
    assert [rows for rows, _ in curve] == [1, 2]
    assert session.now_s < 2.0


def test_rows_that_would_take_much_memory_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inputs of one run stay within the bound."""
    monkeypatch.setattr(speed, "MAX_BYTES", 10 * 4000)
    curve = told(ToldSession(gaining), width=1000).curve(1010.0, 10.0)
    assert [rows for rows, _ in curve] == [1, 2, 4, 8, 10]


def test_the_fewest_rows_near_the_best_speed_are_gathered() -> None:
    """More rows than are needed for the speed only make everybody wait."""
    session = ToldSession(lambda rows: 1000.0 if rows <= 8 else 125.0 * rows)
    one = told(session)
    best, rows_per_s = one.full(one.curve(1000.0, 10.0), 2.0)
    assert best == 8
    assert rows_per_s == pytest.approx(2 * 7.5e3)
    assert session.calls[-1] == ((8, 7), 2)


def test_rows_that_gain_nothing_run_alone() -> None:
    """Where together is no faster, a batch is one row, and only that is measured with all callers."""
    session = ToldSession(level)
    one = told(session)
    best, rows_per_s = one.full(one.curve(1000.0, 10.0), 2.0)
    assert (best, rows_per_s) == (1, pytest.approx(2000.0))
    assert session.calls[-1] == ((1,), 2)


def test_an_engine_that_pays_for_changes_is_measured_with_changes() -> None:
    """Gathered batches differ in size: a gain that changes eat up is none."""
    session = ToldSession(lambda rows: 1000.0 * rows**0.9, change_us=1e5)
    one = told(session)
    assert one.full(one.curve(1000.0, 10.0), 2.0)[0] == 1
    fixed = told(session, rows=8)
    assert fixed.full(fixed.curve(1000.0, 10.0), 2.0)[0] == 8
    assert session.calls[-1] == ((8,), 2)


def test_compiled_rows_are_measured_as_compiled() -> None:
    """The curve of a session compiled for 8 rows has one row and 8."""
    assert [rows for rows, _ in told(ToldSession(gaining), rows=8).curve(1010.0, 10.0)] == [1, 8]
    assert [rows for rows, _ in told(ToldSession(gaining), rows=1).curve(1010.0, 10.0)] == [1]


def test_the_settings_say_how_many_rows() -> None:
    """A batch from model.toml is the one that is measured, with or without a gain."""
    session = ToldSession(level)
    one = told(session, batch=6)
    curve = one.curve(1000.0, 10.0)
    assert [rows for rows, _ in curve] == [1, 2, 4, 6]
    assert one.full(curve, 2.0)[0] == 6


def test_without_a_batch_dimension_requests_run_alone() -> None:
    """There is no curve then, and no batch."""
    session = ToldSession(level)
    one = told(session, max_batch=0)
    assert one.curve(1000.0, 10.0) == ((1, 1000.0),)
    assert one.full(((1, 1000.0),), 1.0) == (0, pytest.approx(2000.0))


def test_inline_runs_have_one_caller() -> None:
    """What runs on the submitting thread runs once at a time."""
    session = ToldSession(level)
    told(session, inline=True, streams=1).saturated(1, 1.0)
    told(session, streams=3).saturated(1, 1.0)
    assert [callers for _, callers in session.calls] == [1, 3]
