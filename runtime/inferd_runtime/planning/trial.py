"""Trials: what one way to run a model is worth, measured in a child process and compared with the reference.

Whatever a candidate does there, a crash, a hang or memory without end, is the outcome of its trial. Sessions stay open
between rounds as far as memory allows, so that candidates can be measured in turn without compiling again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.gpu import GpuMemory
from inferd_runtime.engines.host import HostProcess
from inferd_runtime.errors import EngineFault, HostDied, InferdError
from inferd_runtime.planning.accuracy import Verdict, judge
from inferd_runtime.planning.evidence import Candidate, Inputs, Trial
from inferd_runtime.planning.hosts import Hosts, NamedSession, StartHost
from inferd_runtime.planning.plan import Ground, Wishes
from inferd_runtime.planning.reference import Reference, collect, find_reference
from inferd_runtime.planning.speed import Clock, Speed
from inferd_runtime.spec import ModelSpec

PATIENCE_S = 30.0
NICE = 10
MAX_OPEN = 8
# Rows that run together while answers are compared: what one row answers may not depend on its mates.
COMPARED_ROWS = 8
# Shares of a first trial's seconds: one row alone, more rows alone, all callers at once.
_ALONE, _CURVE, _FULL = 0.25, 0.25, 0.5


class HostTrier:
    """The `Trier` of one model version, whose static plan found `spec`; for one thread, but any may close it.

    `folder` is where golden and calibration data may lie. A child that holds more than `memory_limit_bytes` (0: no
    limit), or does not answer for `patience_s`, is killed. Whose child somebody else kills is tried once more.
    """

    def __init__(
        self,
        ground: Ground,
        variants: Mapping[str, Path],
        spec: ModelSpec,
        wishes: Wishes,
        *,
        folder: Path | None = None,
        memory_limit_bytes: int = 0,
        patience_s: float = PATIENCE_S,
        start: StartHost | None = None,
        gpus: GpuMemory | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._ground = ground
        self._variants = variants
        self._spec = spec
        self._wishes = wishes
        self._folder = folder
        self._memory_limit_bytes = memory_limit_bytes
        self._clock = clock
        self._gpus = gpus or GpuMemory()
        start = start or partial(HostProcess, places=1, nice=NICE, memory_limit_bytes=memory_limit_bytes)
        self._hosts = Hosts(start, patience_s)
        self._found: Reference | EngineFault | None = None
        self._open: dict[Candidate, NamedSession] = {}  # least recently used first
        self._known: dict[Candidate, Trial] = {}  # measured before
        self._killed: set[Candidate] = set()  # by somebody else, once

    @property
    def reference(self) -> str:
        return self._found.words if isinstance(self._found, Reference) else ""

    @property
    def inputs(self) -> Inputs:
        return self._found.samples.source if isinstance(self._found, Reference) else "generated"

    def try_out(self, candidate: Candidate, *, seconds: float, is_first: bool) -> Trial:
        reference = self._reference()
        if isinstance(reference, EngineFault):
            return Trial(candidate, "failed", str(reference))
        try:
            if is_first:
                self._shut(candidate)
                return self._first(candidate, reference, seconds)
            return self._again(candidate, reference, seconds)
        except HostDied as error:
            others = self._lose(candidate)
            is_killed = error.kind == "gone" and candidate not in self._killed
            if is_killed:
                self._killed.add(candidate)
            if is_killed or (error.kind == "memory" and others):  # it may be no fault of its own: they shared the limit
                return self.try_out(candidate, seconds=seconds, is_first=is_first)
            return Trial(candidate, "failed", str(error))
        except InferdError as error:
            self._shut(candidate)
            return Trial(candidate, "failed", str(error))

    def keep(self, candidates: Collection[Candidate]) -> None:
        for candidate in set(self._open) - set(candidates):
            self._shut(candidate)

    def close(self) -> None:
        self._hosts.close()

    # What answers are compared with, and what is open

    def _reference(self) -> Reference | EngineFault:
        if self._found is None:
            try:
                self._found = find_reference(
                    self._hosts, self._ground, self._variants, self._spec, self._folder, self._clock
                )
            except EngineFault as error:
                self._found = error
        return self._found

    def _session(self, candidate: Candidate) -> NamedSession:
        """The candidate's session, opened where it is not."""
        if candidate in self._open:
            self._open[candidate] = self._open.pop(candidate)  # the most recently used
            return self._open[candidate]
        self._make_room()
        # A compiled file that may never be used is not worth its place on the disk, unless it takes minutes.
        cache = self._ground.cache_dir if candidate.device.startswith("tensorrt") else None
        options = SessionOptions(
            candidate.device, candidate.streams, candidate.threads, candidate.precision, cache, candidate.rows
        )
        path = self._variants[candidate.variant]
        session = self._open[candidate] = self._hosts.open(candidate.engine, path, options, self._spec)
        return session

    def _make_room(self) -> None:
        """Close what was not used for longest."""
        half = self._memory_limit_bytes / 2
        while len(self._open) >= MAX_OPEN or (half and sum(map(self._held, self._open)) > half):
            self._shut(next(iter(self._open)))

    def _held(self, candidate: Candidate) -> int:
        return self._known[candidate].memory_bytes if candidate in self._known else 0

    def _shut(self, candidate: Candidate) -> None:
        session = self._open.pop(candidate, None)
        if session:
            session.close()

    def _lose(self, candidate: Candidate) -> list[Candidate]:
        """Forget what died with the candidate's child; the others of it."""
        lost = [other for other in self._open if other.engine == candidate.engine]
        for other in lost:
            del self._open[other]
        return [other for other in lost if other != candidate]

    # Trials

    def _first(self, candidate: Candidate, reference: Reference, seconds: float) -> Trial:
        """Accuracy before speed: a candidate that strays is not worth the time."""
        self._make_room()
        before = self._memory_bytes(candidate)
        session = self._session(candidate)
        verdict = self._judged(candidate, session, reference)
        trial = Trial(
            candidate,
            "measured",
            memory_bytes=max(0, self._memory_bytes(candidate) - before),
            compile_ms=round(session.compile_ms, 1),
            error=verdict.figure,
            metric=verdict.metric,
            rounds=1,
        )
        if not verdict.ok:
            self._shut(candidate)
            reason = f"strays from the reference: {verdict.sentence}"
            return replace(trial, outcome="failed" if verdict.is_broken else "vetoed", reason=reason)
        speed = self._speed(candidate, session, reference)
        alone = speed.alone(seconds * _ALONE)
        curve = speed.curve(alone.p50_us, seconds * _CURVE)
        best, rows_per_s = speed.full(curve, seconds * _FULL)
        self._known[candidate] = replace(
            trial,
            run_us=alone.p50_us,
            run_p95_us=alone.p95_us,
            curve=curve,
            rows_per_s=rows_per_s,
            best_batch=best,
        )
        return self._known[candidate]

    def _memory_bytes(self, candidate: Candidate) -> int:
        """What the engine's child holds, and all that is taken of the candidate's device."""
        on_device = self._gpus.look(candidate.device)
        return self._hosts.memory_bytes(candidate.engine) + (on_device.used_bytes if on_device else 0)

    def _again(self, candidate: Candidate, reference: Reference, seconds: float) -> Trial:
        """What changes from one time to the next, measured anew."""
        known = self._known.get(candidate)
        if known is None:
            return self._first(candidate, reference, seconds)
        speed = self._speed(candidate, self._session(candidate), reference)
        alone = speed.alone(seconds / 2)
        rows_per_s = speed.saturated(known.best_batch, seconds / 2)
        return replace(known, run_us=alone.p50_us, run_p95_us=alone.p95_us, rows_per_s=rows_per_s)

    def _speed(self, candidate: Candidate, session: NamedSession, reference: Reference) -> Speed:
        return Speed(session, candidate, reference.samples, self._spec.max_batch, self._wishes.batch, self._clock)

    def _judged(self, candidate: Candidate, session: NamedSession, reference: Reference) -> Verdict:
        got = collect(session, reference.samples, most_rows=COMPARED_ROWS, clock=self._clock)
        return judge(
            [tensor.name for tensor in self._spec.outputs],
            reference.answers[: len(got)],
            got,
            is_other_variant=candidate.variant != reference.variant,
            is_made_up=reference.samples.source == "generated",
            metric=self._wishes.metric,
            tolerance=self._wishes.tolerance,
        )
