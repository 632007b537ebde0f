"""Warm-up: the first runs of a fresh session, on inputs made up from its spec.

They pay what a first run costs, show that the session works at all, whether its first dimension really is a batch, and
how long one row takes. Values and free dimensions are guesses, so a failure of guesses is told and not held against the
session; a failure where nothing but float values was guessed is the engine's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferd_runtime.engines import Session
from inferd_runtime.errors import InferdError
from inferd_runtime.tensor import STRING, TensorSpec

Array = np.ndarray[Any, Any]

# Sizes tried for every free dimension that is not the batch, most useful first: image models want multiples of 32.
GUESSED_SIZES = (64, 32, 224, 1)
MAX_INPUT_BYTES = 256 << 20
_ROWS = 2
_LEAST_RUNS, _MAX_RUNS = 2, 15
_BUDGET_NS = 50_000_000


@dataclass(frozen=True, slots=True)
class Warmth:
    """What the warm-up showed. `run_us` 0: no run succeeded; `fault` is why the last one failed, then.

    `is_guess`: sizes or values were guessed that the model may rightly refuse. `is_batch`: rows go in and come out;
    None where no run could tell. `many_us` is one run of the rows asked for, 0 where that was not tried or failed, and
    `many_fault` is why, then: requests of fewer rows are served all the same.
    """

    run_us: float = 0.0
    many_us: float = 0.0
    many_fault: str = ""
    is_guess: bool = False
    has_free_sizes: bool = False
    is_batch: bool | None = None
    batch_fault: str = ""
    fault: str = ""


def is_batched_by_shape(session: Session) -> bool:
    """Whether every input and output has a free first dimension."""
    tensors = (*session.inputs, *session.outputs)
    return bool(session.inputs) and bool(session.outputs) and all(t.shape and t.shape[0] < 0 for t in tensors)


def warm(
    session: Session,
    *,
    is_batched: bool,
    many_rows: Callable[[float], int],
    inputs: Sequence[TensorSpec] = (),
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Warmth:
    """Run `session` a few times. Never raises for what the session does.

    `many_rows` says how many rows to try together, given the microseconds that one takes. `inputs` are the session's,
    where more is known of them than it tells.
    """
    inputs = inputs or session.inputs
    has_free_sizes = any(dim < 0 for spec in inputs for dim in spec.shape[is_batched:])
    is_guess = has_free_sizes or any(spec.dtype.kind not in "fV" for spec in inputs)
    fault = ""
    for size in GUESSED_SIZES if has_free_sizes else GUESSED_SIZES[:1]:
        for value in (0, 1):
            fill = _Fill(inputs, size, value, is_batched)
            fault = _run(session, fill, 1)
            if fault:
                continue
            try:
                known = Warmth(is_guess=is_guess, has_free_sizes=has_free_sizes)
                return _measure(session, fill, known, many_rows, clock_ns)
            except InferdError as error:
                fault = str(error)
    return Warmth(is_guess=is_guess, has_free_sizes=has_free_sizes, fault=fault)


@dataclass(frozen=True, slots=True)
class _Fill:
    """Made-up inputs: every element `value`, every free dimension `size`, the batch as many rows as asked."""

    specs: Sequence[TensorSpec]
    size: int
    value: int
    is_batched: bool

    def arrays(self, rows: int) -> list[Array]:
        return [self.array(spec, rows) for spec in self.specs]

    def array(self, spec: TensorSpec, rows: int) -> Array:
        shape = [self.size if dim < 0 else dim for dim in spec.shape]
        if self.is_batched and shape:
            shape[0] = rows
        if int(np.prod(shape, dtype=np.float64)) * spec.dtype.itemsize > MAX_INPUT_BYTES:
            raise InferdError(f"a made-up input {spec.name!r} of shape {shape} would be too large")
        array: Array = np.full(shape, b"" if spec.dtype == STRING else self.value, spec.dtype)
        array.flags.writeable = False
        return array


def _run(session: Session, fill: _Fill, rows: int) -> str:
    """Run once; why it failed, empty where it did not."""
    try:
        outputs = session.run(fill.arrays(rows), range(len(session.outputs)))
    except InferdError as error:
        return str(error)
    if fill.is_batched:
        for spec, array in zip(session.outputs, outputs, strict=True):
            if array.ndim == 0 or array.shape[0] != rows:
                return f"{rows} rows in gave output {spec.name!r} of shape {list(array.shape)}"
    return ""


def _batch_fault(session: Session, fill: _Fill) -> str:
    """Why the first dimensions are not one batch, empty where they are as far as can be seen."""
    fault = _run(session, fill, _ROWS)
    if fault or len(session.inputs) < 2 or any(session.batch_symbols):
        return fault
    uneven = [fill.array(spec, _ROWS + index) for index, spec in enumerate(fill.specs)]
    try:
        session.run(uneven, range(len(session.outputs)))
    except InferdError:
        return ""
    return "its inputs may differ in their first dimensions"


def _measure(
    session: Session, fill: _Fill, warmth: Warmth, many_rows: Callable[[float], int], clock_ns: Callable[[], int]
) -> Warmth:
    batch_fault = _batch_fault(session, fill) if fill.is_batched else ""
    run_us = _shortest_us(session, fill.arrays(1), clock_ns)
    many_us, many_fault = 0.0, ""
    rows = many_rows(run_us) if fill.is_batched and not batch_fault else 0
    if rows > 1 and run_us * rows < 10 * _BUDGET_NS / 1000:
        try:
            many = fill.arrays(rows)
            session.run(many, range(len(session.outputs)))  # the first run of a new shape pays for its compilation
            many_us = _shortest_us(session, many, clock_ns)
        except InferdError as error:
            many_fault = str(error)
    return Warmth(
        run_us=run_us,
        many_us=many_us,
        many_fault=many_fault,
        is_guess=warmth.is_guess,
        has_free_sizes=warmth.has_free_sizes,
        is_batch=not batch_fault if fill.is_batched else None,
        batch_fault=batch_fault,
    )


def _shortest_us(session: Session, inputs: Sequence[Array], clock_ns: Callable[[], int]) -> float:
    """The shortest run, of as many as the budget allows: what others do meanwhile only adds to it. Two at least, since
    one may have been kept waiting for longer than the budget is."""
    outputs = range(len(session.outputs))
    took_ns: list[int] = []
    while len(took_ns) < _LEAST_RUNS or (len(took_ns) < _MAX_RUNS and sum(took_ns) < _BUDGET_NS):
        begin = clock_ns()
        session.run(inputs, outputs)
        took_ns.append(clock_ns() - begin)
    return min(took_ns) / 1000
