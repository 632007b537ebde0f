"""Timing with several inputs in turn, on a session that notes what it is given and a clock that ticks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from inferd_runtime.engines import Array
from inferd_runtime.engines.host.measure import measure
from inferd_runtime.tensor import TensorSpec

FP32 = np.dtype(np.float32)


class NotingSession:
    """Two inputs and one output; keeps the rows of every run."""

    inputs = (TensorSpec("a", FP32, (-1,)), TensorSpec("b", FP32, (-1,)))
    outputs = (TensorSpec("y", FP32, (-1,)),)
    batch_symbols = ("", "", "")

    def __init__(self) -> None:
        self.rows: list[int] = []

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        a, b = inputs
        assert len(a) == len(b)
        self.rows.append(len(a))
        return [a]

    def close(self) -> None:
        pass


def test_several_inputs_take_turns() -> None:
    """Each is run once before the clock starts, then one after the other."""
    session, ticks = NotingSession(), itertools.count(step=1000)
    four, three = [np.zeros(4, FP32)] * 2, [np.zeros(3, FP32)] * 2
    measured = measure(session, [*four, *three], 1, 5e-6, lambda: next(ticks))
    assert session.rows == [4, 3, 4, 3, 4, 3, 4]
    assert (measured.runs, measured.p50_us, measured.runs_per_s) == (5, 1.0, 1e6)


def test_one_input_has_every_turn() -> None:
    """Inputs of a single run are run over and over."""
    session, ticks = NotingSession(), itertools.count(step=1000)
    measure(session, [np.zeros(2, FP32)] * 2, 1, 2e-6, lambda: next(ticks))
    assert session.rows == [2, 2, 2]
