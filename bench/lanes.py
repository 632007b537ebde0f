"""A lane in this very process, on a real engine, without sockets: what the benches of scheduling have in common."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from bench import models
from inferd_agent.daemon import COLLECTOR_THRESHOLDS
from inferd_runtime.engines import Session, SessionOptions
from inferd_runtime.engines.discover import open_engines
from inferd_runtime.job import Job
from inferd_runtime.probe import probe
from inferd_runtime.scheduling.budget import ByteBudget, CoreBudget
from inferd_runtime.scheduling.lane import Lane
from inferd_runtime.scheduling.queue import QueueLimits
from inferd_runtime.spec import ModelSpec, Plan
from inferd_runtime.stats import ModelStats

Array = np.ndarray[Any, Any]

MAX_ROWS = 64
_CURVE_RUNS = 15
_ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class Model:
    """A bench model: its file, its input and one row for it."""

    name: str
    path: Path
    input: str
    row: Array


def find_model(name: str, cache: Path) -> Model:
    """One of `bench.models`, made where it is not there yet."""
    recipe = models.RECIPES[name]
    folder = models.made(cache, (name,))[name]
    return Model(name, folder / "1" / "model.onnx", recipe.input, recipe.draw(np.random.default_rng(1), 1))


class Served:
    """An open model with its measured curve, from which lanes are made; one thread a stream, a stream a core."""

    def __init__(self, model: Model, engine: str) -> None:
        self.model = model
        self.streams = max(1, probe().allowed_physical)
        self._engine = open_engines()[0][engine]
        session = self.open()
        self.spec = ModelSpec(session.inputs, session.outputs, MAX_ROWS)
        self.curve = measure_curve(session, model.row)
        session.close()
        gc.collect()  # what follows is as in a daemon whose models are up
        gc.freeze()
        gc.set_threshold(*COLLECTOR_THRESHOLDS)

    def open(self) -> Session:
        return self._engine.open(self.model.path, SessionOptions("cpu", self.streams, 1))

    def lane(self, deliver: Callable[[Sequence[Job]], None], batch: int, max_jobs: int = 100_000) -> Lane:
        """A lane as measuring would plan it, that gathers up to `batch` rows."""
        run_us = self.curve[0][1]
        plan = Plan(
            self._engine.name, "cpu", "", "auto", self.streams, 1, batch, False, run_us, "bench", curve=self.curve
        )
        limits = QueueLimits(max_jobs, ByteBudget(1 << 30))
        stats = ModelStats(self.model.name, 1)
        budget = CoreBudget(self.streams)
        return Lane(
            self.model.name, 1, self.spec, self.open(), plan,
            budget=budget, queue_limits=limits, stats=stats, deliver=deliver,
        )  # fmt: skip

    def job(self, deadline_ns: int | None = None) -> Job:
        return Job(self.model.name, {self.model.input: self.model.row}, deadline_ns=deadline_ns)


def measure_curve(session: Session, row: Array) -> tuple[tuple[int, float], ...]:
    """(rows, median microseconds of one run alone)."""
    curve = []
    for rows in (1, 2, 4, 8, 16, 32, 64):
        inputs = [np.ascontiguousarray(np.repeat(row, rows, axis=0))]
        outputs = range(len(session.outputs))
        took_ns = []
        for _ in range(_CURVE_RUNS):
            start = time.perf_counter_ns()
            session.run(inputs, outputs)
            took_ns.append(time.perf_counter_ns() - start)
        curve.append((rows, statistics.median(took_ns) / 1000))
    return tuple(curve)


@dataclass(frozen=True, slots=True)
class Pace:
    """What a closed loop reached. `wait_us` is from lining up to the start of the run, the median."""

    per_s: float
    p50_us: float
    p99_us: float
    wait_us: float
    mean_rows: float


class ClosedLoop:
    """Callers who ask again as soon as they have their answer, all on one thread, as on an event loop."""

    def __init__(self, served: Served, make_lane: Callable[[Callable[[Sequence[Job]], None]], Lane]) -> None:
        self._served = served
        self._answers: SimpleQueue[Sequence[Job]] = SimpleQueue()
        self._lane = make_lane(self._answers.put)

    def run(self, callers: int, seconds: float, warm_up_s: float) -> Pace:
        """So many callers for so long; all have their answers in the end."""
        for _ in range(callers):
            self._lane.submit(self._served.job())
        done: list[Job] = []
        start = time.perf_counter() + warm_up_s
        while (now := time.perf_counter()) < start + seconds:
            jobs = self._answers.get(timeout=_ANSWER_S)
            if now >= start:
                done += jobs
            for _ in jobs:
                self._lane.submit(self._served.job())
        took_s = now - start
        while callers:
            callers -= len(self._answers.get(timeout=_ANSWER_S))
        return _sum_up(done, took_s)

    def close(self) -> None:
        self._lane.close()


def _sum_up(done: Sequence[Job], took_s: float) -> Pace:
    errors = [job.error for job in done if job.error is not None]
    if errors:
        raise RuntimeError(f"{len(errors)} requests failed: {errors[0]}")
    took_us = sorted((job.settled_ns - job.enqueued_ns) / 1000 for job in done)
    return Pace(
        per_s=len(done) / took_s,
        p50_us=took_us[len(took_us) // 2],
        p99_us=took_us[int(0.99 * len(took_us))],
        wait_us=statistics.median((job.started_ns - job.enqueued_ns) / 1000 for job in done),
        mean_rows=len(done) / sum(1 / job.batch_rows for job in done),
    )
