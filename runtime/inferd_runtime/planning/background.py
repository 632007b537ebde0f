"""Measuring in the background: one version at a time, unasked only while the machine is calm, at once when asked.

A version serves on its safe plan meanwhile. What is measured unasked is put off as soon as requests come, since both
would disturb each other, or somebody asks; what is unloaded or replaced meanwhile is given up. `measure` does the
measuring and keeps the evidence; `swap` has the version opened anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from inferd_runtime.errors import Closed, InferdError, ModelNotReady
from inferd_runtime.planning.evidence import Evidence, PlanState
from inferd_runtime.planning.plan import Wishes
from inferd_runtime.spec import ModelSpec

# How often to look whether the machine has become calm, while something waits for that.
LOOK_EVERY_S = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Subject:
    """A version that serves, and all that measuring it needs. `operators` counts its nodes by type; `look` gives the
    digest of the files as they are now, and may raise OSError."""

    name: str
    version: int
    digest: str
    variants: Mapping[str, Path]
    spec: ModelSpec
    wishes: Wishes
    operators: Mapping[str, int]
    folder: Path | None
    look: Callable[[], str]

    def same(self, other: Subject) -> bool:
        """Whether what is measured of one holds for the other."""
        mine, theirs = ((it.name, it.version, it.digest, it.wishes) for it in (self, other))
        return mine == theirs


@dataclass(frozen=True, slots=True)
class Order:
    """How to measure. `budget_s` None: as the daemon is configured. `is_asked`: somebody wants it, calm or not."""

    budget_s: float | None = None
    thorough: bool = False
    is_asked: bool = False


Progress = Callable[[int, int, str], None]
Measure = Callable[[Subject, Order, Progress, Callable[[], bool]], Evidence]


@dataclass(slots=True)
class _Case:
    """One version's standing."""

    subject: Subject
    evidence: Evidence | None
    order: Order | None = None
    progress: tuple[int, int, str] = (0, 0, "")

    @property
    def is_asked(self) -> bool:
        """Whether somebody waits for it to be measured."""
        return self.order is not None and self.order.is_asked


@dataclass(slots=True)
class _Cases:
    """All versions, and the one that is measured now; guarded by `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    known: dict[tuple[str, int], _Case] = field(default_factory=dict)
    current: _Case | None = None


class Background:
    """Measures what is offered, on a thread of its own. `is_unasked` off: only what somebody asks for."""

    def __init__(
        self,
        measure: Measure,
        swap: Callable[[str, int], None],
        *,
        is_unasked: bool,
        is_calm: Callable[[], bool],
        is_busy: Callable[[], bool],
        is_served: Callable[[str, int], bool],
    ) -> None:
        self._measure = measure
        self._swap = swap
        self._is_unasked = is_unasked
        self._is_calm = is_calm
        self._is_busy = is_busy
        self._is_served = is_served
        self._cases = _Cases()
        self._wake = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="planner", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """End what is measured now, within bounds; idempotent."""
        self._is_closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def offer(self, subject: Subject, evidence: Evidence | None) -> None:
        """A version is about to serve, on a plan from `evidence`, or on a safe one that may be improved."""
        key = (subject.name, subject.version)
        with self._cases.lock:
            known = self._cases.known
            for other in [other for other in known if other != key and not self._is_served(*other)]:
                del known[other]
            case = _Case(subject, evidence)
            before = known.get(key)
            if before is not None and before.is_asked and before.subject.same(subject):
                case.order = before.order  # somebody waits for it
            elif evidence is None and self._is_unasked:
                case.order = Order()
            known[key] = case
        self._wake.set()

    def order(self, name: str, version: int, order: Order) -> None:
        """Measure before all that nobody asked for. Raises ModelNotReady."""
        with self._cases.lock:
            case = self._cases.known.get((name, version))
            if case is None or not self._is_served(name, version):
                raise ModelNotReady(f"model {name!r} version {version} is not being served, so it cannot be measured")
            case.order = order
        self._wake.set()

    def state(self, name: str, version: int) -> PlanState:
        """How far it is; "static" for what is not known."""
        with self._cases.lock:
            case = self._cases.known.get((name, version))
            if case is None:
                return PlanState("static" if self._is_unasked else "off")
            current = self._cases.current  # of before a reload, perhaps
            if current is not None and current.subject.same(case.subject):
                done, total, now = current.progress
                return PlanState("measuring", done, total, now, case.evidence)
            state: Literal["queued", "measured", "static", "off"] = "static" if self._is_unasked else "off"
            if case.order is not None:
                state = "queued"
            elif case.evidence is not None:
                state = "measured"
            return PlanState(state, evidence=case.evidence)

    def _work(self) -> None:
        while not self._is_closing:
            self._wake.clear()
            case, order, is_waiting = self._next()
            if case is None or order is None:
                self._wake.wait(LOOK_EVERY_S if is_waiting else None)
                continue
            try:
                self._take_on(case, order)
            except Exception:
                _log.exception("measuring %s failed; it serves on as it does", case.subject.name)

    def _next(self) -> tuple[_Case | None, Order | None, bool]:
        """What to measure now, and whether anything waits for calm. Its order is taken."""
        with self._cases.lock:
            for case in self._cases.known.values():
                if case.order is not None and self._is_stale(case):
                    case.order = None
            waiting = [case for case in self._cases.known.values() if case.order is not None]
            asked = [case for case in waiting if case.is_asked]
        if not asked and not (waiting and self._is_calm()):
            return None, None, bool(waiting)
        case = (asked or waiting)[0]
        with self._cases.lock:
            order, case.order = case.order, None
            case.progress = (0, 0, "")
            self._cases.current = case
        return case, order, True

    def _take_on(self, case: _Case, order: Order) -> None:
        """Measure one version and have it swapped; put off unasked what requests came in the way of."""
        subject = case.subject

        def tell(done: int, total: int, now: str) -> None:
            case.progress = (done, total, now)

        def should_stop() -> bool:
            gives_way = not order.is_asked and (self._is_busy() or self._is_anything_asked())
            return self._is_closing or gives_way or self._is_stale(case)

        try:
            evidence = self._measure(subject, order, tell, should_stop)
            with self._cases.lock:
                case.evidence = evidence
            self._swap(subject.name, subject.version)
        except Closed:
            if self._is_stale(case):
                _log.info("%s version %d is not measured: it was unloaded or replaced", subject.name, subject.version)
                return
            with self._cases.lock:
                case.order = case.order or (None if self._is_closing else order)
            self._wake.wait(LOOK_EVERY_S)
        except InferdError as error:
            _log.warning("%s version %d keeps its safe plan: %s", subject.name, subject.version, error)
        finally:
            with self._cases.lock:
                self._cases.current = None

    def _is_anything_asked(self) -> bool:
        with self._cases.lock:
            return any(case.is_asked for case in self._cases.known.values())

    def _is_stale(self, case: _Case) -> bool:
        """Whether the version does not serve any more, or does with other content or settings."""
        subject = case.subject
        known = self._cases.known.get((subject.name, subject.version))
        return known is None or not known.subject.same(subject) or not self._is_served(subject.name, subject.version)
