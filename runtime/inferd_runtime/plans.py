"""Plans of the versions that serve: opens each on the plan that was measured for it, or on a safe one until it is.

Joins the repository's files and settings with planning. What is measured in the background is kept on disk, and then
the version is opened anew, on what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from inferd_runtime.errors import InvalidModel, ModelNotFound, ModelNotReady
from inferd_runtime.planning.background import Background, Order, Progress, Subject
from inferd_runtime.planning.evidence import Evidence, PlanState
from inferd_runtime.planning.inputs import stored_mark
from inferd_runtime.planning.kind import model_kind
from inferd_runtime.planning.measured import measure_plan, plan_from
from inferd_runtime.planning.plan import Ground, Planned
from inferd_runtime.planning.static import plan_version
from inferd_runtime.planning.store import PlanStore, plan_key
from inferd_runtime.planning.trial import HostTrier
from inferd_runtime.repository.digest import digest as content_digest
from inferd_runtime.repository.examine import operators
from inferd_runtime.repository.layout import VersionFiles
from inferd_runtime.repository.repository import Repository
from inferd_runtime.repository.settings import ModelSettings
from inferd_runtime.spec import State

# The part of the available memory that a trial, or two sessions of one plan, may take.
MEMORY_SHARE = 0.5


class Plans:
    """Plans for one repository. `ground()` is what they stand on; `is_calm()` and `is_busy()` tell how things are now;
    `available_bytes()` is memory that could be had, None where nobody knows."""

    def __init__(
        self,
        repository: Repository,
        ground: Callable[[], Ground],
        *,
        cache_dir: Path,
        is_unasked: bool,
        budget_s: float,
        is_calm: Callable[[], bool],
        is_busy: Callable[[], bool],
        available_bytes: Callable[[], int | None],
    ) -> None:
        self._repository = repository
        self._ground = ground
        self._store = PlanStore(cache_dir / "plans")
        self._budget_s = budget_s
        self._available_bytes = available_bytes
        self._background = Background(
            self._measure,
            repository.refresh,
            is_unasked=is_unasked,
            is_calm=is_calm,
            is_busy=is_busy,
            is_served=self._is_served,
        )
        self.start = self._background.start
        self.close = self._background.close

    def open(self, files: VersionFiles, settings: ModelSettings, digest: str) -> Planned:
        """Open and warm a version. Raises InvalidModel, LoadFailed."""
        ground, wishes = self._ground(), settings.wishes()
        folder = files.base.parent if files.base.name == str(files.version) else None
        evidence = self._store.load(plan_key(ground, wishes, _basis(digest, folder)))
        if evidence is None:
            planned = plan_version(ground, files.variants, wishes)
        else:
            planned = plan_from(evidence, ground, files.variants, wishes)
        ops = _operators(files.variants[planned.plan.variant])
        subject = Subject(
            files.name,
            files.version,
            digest,
            files.variants,
            planned.spec,
            wishes,
            ops,
            folder,
            lambda: content_digest(files.files, files.base),
        )
        self._background.offer(subject, evidence)
        return planned

    def state(self, name: str, version: int | None = None) -> PlanState:
        """How far the measuring of a version is, None for the one that serves. Raises ModelNotFound."""
        return self._background.state(name, self._repository.describe(name, version).version)

    def measure(self, name: str, *, budget_s: float | None = None, thorough: bool = False) -> None:
        """Measure the version that serves, soon. Raises ModelNotFound, ModelNotReady."""
        version = self._repository.describe(name).version
        self._background.order(name, version, Order(budget_s, thorough, is_asked=True))

    def _measure(self, subject: Subject, order: Order, progress: Progress, should_stop: Callable[[], bool]) -> Evidence:
        ground = self._ground()
        available = self._available_bytes()
        spare = None if available is None else int(available * MEMORY_SHARE)
        basis = _basis(subject.digest, subject.folder)
        trier = HostTrier(
            ground,
            subject.variants,
            subject.spec,
            subject.wishes,
            folder=subject.folder,
            memory_limit_bytes=spare or 0,
        )
        try:
            return measure_plan(
                ground,
                subject.variants,
                subject.wishes,
                spec=subject.spec,
                kind=model_kind(subject.operators),
                file_bytes=max(path.stat().st_size for path in subject.variants.values()),
                digest=basis,
                trier=trier,
                store=self._store,
                budget_s=order.budget_s or self._budget_s,
                thorough=order.thorough,
                spare_bytes=spare,
                progress=progress,
                should_stop=should_stop,
                is_unchanged=lambda: _basis(subject.look(), subject.folder) == basis,
            )
        except OSError as error:
            raise ModelNotReady(f"its files cannot be read: {error.strerror}") from None

    def _is_served(self, name: str, version: int) -> bool:
        try:
            return self._repository.describe(name, version).state in (State.LOADING, State.READY)
        except ModelNotFound:
            return False


def _basis(digest: str, folder: Path | None) -> str:
    """What figures hang on, of all that lies on the disk: the model, and what it is tried with."""
    return f"{digest} {stored_mark(folder)}"


def _operators(path: Path) -> Mapping[str, int]:
    """Only the order of trials hangs on them, so a file that does not tell is no failure."""
    try:
        return operators(path)
    except InvalidModel:
        return {}
