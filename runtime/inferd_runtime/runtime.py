"""The façade: what an agent holds. Opens engines when the first model needs one, serves jobs, and closes in order.

`submit` is the hot path: one look into the repository's snapshot, then the lane's own admission. Invariant: every job
that `submit` accepted is handed to `deliver` exactly once, also over reloads, drains and `close`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from inferd_runtime.errors import Closed, ModelNotReady
from inferd_runtime.job import Array, Job
from inferd_runtime.options import RuntimeFigures, RuntimeOptions, policy_of
from inferd_runtime.probe import Machine, probe
from inferd_runtime.scheduling.budget import ByteBudget, CoreBudget
from inferd_runtime.scheduling.courtesy import stand_back
from inferd_runtime.scheduling.desk import Deliver
from inferd_runtime.scheduling.devices import DeviceBudgets
from inferd_runtime.scheduling.governor import Governor
from inferd_runtime.scheduling.inline import Defer, ThreadLoad
from inferd_runtime.scheduling.lane import Lane
from inferd_runtime.scheduling.queue import QueueLimits
from inferd_runtime.scheduling.spent import Spent, free_now
from inferd_runtime.spec import ModelDescription
from inferd_runtime.stats import ModelStats, StatsSnapshot

if TYPE_CHECKING:
    from inferd_runtime.engines import Engine
    from inferd_runtime.planning.evidence import PlanState
    from inferd_runtime.planning.plan import Ground
    from inferd_runtime.repository.layout import VersionFiles
    from inferd_runtime.repository.settings import ModelSettings

# Plans are measured unasked while no more of the machine is busy than this.
CALM_CORES, CALM_SHARE = 0.25, 0.1

_log = logging.getLogger(__name__)


class Runtime:
    """Serves every model below the repository roots on this machine.

    `deliver(jobs)` gets settled jobs, from any of our threads, or on the submitting thread for inline batches.
    `defer(fn)` runs `fn` soon on the thread that submits; without it nothing runs inline, with it `submit` belongs to
    that thread. `callers()` names the processes on this machine that called since it was last asked.
    """

    def __init__(
        self,
        options: RuntimeOptions,
        *,
        deliver: Deliver,
        defer: Defer | None = None,
        callers: Callable[[], Collection[int]] = tuple,
        machine: Machine | None = None,
        engines: Mapping[str, Engine] | None = None,
        settle_s: float = 0.5,
    ) -> None:
        from inferd_runtime.plans import Plans
        from inferd_runtime.repository.repository import Repository

        self.options = options
        self.machine = machine or probe()
        self._deliver = deliver
        self._defer = defer
        self._callers = callers
        self._given_engines = engines
        self._ground: Ground | None = None
        self._policy = policy_of(options, self.machine)
        self._budget = CoreBudget(self._policy.ceiling)
        self._budgets = DeviceBudgets(self._budget)
        self._limits = QueueLimits(options.max_jobs, ByteBudget(options.max_queue_bytes))
        self._lock = threading.Lock()  # guards _lanes, _stats and the making of _ground
        self._lanes: list[Lane] = []
        self._spent = Spent()
        self._thread_load = ThreadLoad(time.monotonic_ns)
        self._stats: dict[tuple[str, int], ModelStats] = {}
        self._accepted_before = self._accepted_in_calm = self._discounted = 0
        self._is_draining = False
        self._governor: Governor | None = None
        self._repository = Repository(
            options.models,
            open_version=self._open_version,
            cache_dir=options.cache_dir,
            watch=options.watch,
            load=options.load,
            settle_s=settle_s,
        )
        self._get = self._repository.get
        self._plans = Plans(
            self._repository,
            self._stand,
            cache_dir=options.cache_dir,
            is_unasked=options.planning == "auto",
            budget_s=options.budget_s,
            is_calm=self._is_calm,
            is_busy=lambda: self._count_accepted() != self._accepted_in_calm,
            available_bytes=self._available_bytes,
        )

    # Life

    def start(self) -> None:
        """Begin to govern, scan and load, all in the background."""
        from inferd_runtime.probe.load import LoadSampler

        sampler = LoadSampler(self.machine, callers=self._callers)
        self._governor = Governor(
            self._budget, self._policy, sampler.sample, is_idle=self._is_idle, chore=self._look_after_lanes
        )
        self._governor.start()
        self._repository.start()
        self._plans.start()

    def wait_loaded(self, timeout_s: float) -> bool:
        """Whether the first round of loading was over in time."""
        return self._repository.wait_loaded(timeout_s)

    def drain(self, timeout_s: float) -> bool:
        """Refuse new jobs with Closed and finish the accepted ones; False when time ran out. Not for the submitting
        thread: inline jobs need it."""
        self._is_draining = True
        end = time.monotonic() + timeout_s
        lanes = self._live_lanes()
        for lane in lanes:
            lane.stop()
        return all(lane.drain(max(0.0, end - time.monotonic())) for lane in lanes)

    def close(self) -> None:
        """Settle what still waits with Closed and free everything; idempotent."""
        self._is_draining = True
        if self._governor is not None:
            self._governor.stop()
        self._plans.close()
        self._repository.close()
        for lane in self._live_lanes():
            lane.close()
        self._spent.close()
        self._budgets.close()

    # Jobs

    def submit(self, job: Job) -> None:
        """Accept a job or raise: InvalidRequest, ModelNotFound, ModelNotReady, Overloaded, DeadlineExceeded, Cancelled,
        Closed."""
        if self._is_draining:
            raise Closed("the daemon is shutting down")
        lane = self._get(job.model, job.version)
        try:
            lane.submit(job)
        except Closed:
            self._submit_again(job, lane)

    def _submit_again(self, job: Job, stale: object) -> None:
        """The lane closed between look-up and submit: its successor takes the job, if there is one."""
        if self._is_draining:
            raise Closed("the daemon is shutting down") from None
        lane = self._get(job.model, job.version)
        if lane is not stale:
            try:
                return lane.submit(job)
            except Closed:
                pass
        raise ModelNotReady(f"model {job.model!r} is being unloaded or replaced") from None

    def discount(self, count: int) -> None:
        """So many jobs are about to be submitted that are nobody's: they leave a calm machine calm."""
        self._discounted += count

    # Models

    def describe(self, name: str, version: int | None = None) -> ModelDescription:
        """None: the highest ready version, else the highest known. Raises ModelNotFound."""
        return self._repository.describe(name, version)

    def versions(self, name: str) -> tuple[int, ...]:
        """The ready versions, ascending. Raises ModelNotFound."""
        return self._repository.versions(name)

    def models(self) -> tuple[ModelDescription, ...]:
        """Every version known, failed and unloaded ones too, sorted."""
        return self._repository.models()

    def load(self, name: str) -> None:
        """Load, or load again; blocks. Raises LoadFailed, InvalidModel, ModelNotFound, Closed."""
        if self._is_draining:
            raise Closed("the daemon is shutting down")
        self._repository.load(name)

    def unload(self, name: str) -> None:
        """Unload every version of a model; blocks until drained, within bounds. Raises ModelNotFound."""
        self._repository.unload(name)

    def evidence(self, name: str, version: int | None = None) -> PlanState:
        """What was measured of a version, and how far a measuring is. Raises ModelNotFound."""
        return self._plans.state(name, version)

    def measure(self, name: str, *, budget_s: float | None = None, thorough: bool = False) -> None:
        """Measure the version that serves soon, calm or not, and move to what is found. Raises ModelNotFound,
        ModelNotReady, Closed."""
        if self._is_draining:
            raise Closed("the daemon is shutting down")
        self._plans.measure(name, budget_s=budget_s, thorough=thorough)

    def guess_inputs(self, name: str, version: int | None = None) -> Iterator[Mapping[str, Array]]:
        """Inputs of small requests that the model may take, likely ones first. Raises ModelNotFound."""
        from inferd_runtime.planning.inputs import made_up

        spec = self._repository.describe(name, version).spec
        return iter(()) if spec is None else (samples.requests[0] for samples in made_up(spec, most=1))

    def is_ready(self) -> bool:
        """Loaded, with no model failed or loading, and not draining."""
        return not self._is_draining and self._repository.is_ready()

    # Figures

    def stats(self, name: str | None = None, version: int | None = None) -> tuple[StatsSnapshot, ...]:
        """The counters of versions that serve or served, sorted. Raises ModelNotFound for what is not known."""
        if name is not None:
            self._repository.describe(name, version)
        known = {(model.name, model.version) for model in self._repository.models()}
        with self._lock:
            for key in self._stats.keys() - known - {(lane.name, lane.version) for lane in self._lanes}:
                del self._stats[key]
            wanted = [
                stats
                for key, stats in sorted(self._stats.items())
                if name in (None, key[0]) and version in (None, key[1])
            ]
        return tuple(stats.snapshot() for stats in wanted)

    def figures(self) -> RuntimeFigures:
        """The figures of the whole runtime."""
        lanes = self._live_lanes()
        sample = self._governor.latest if self._governor is not None else None
        return RuntimeFigures(
            core_floor=self._policy.floor,
            core_ceiling=self._policy.ceiling,
            core_size=self._budget.size,
            core_used=self._budget.used,
            queued_jobs=sum(lane.waiting for lane in lanes),
            running_jobs=sum(lane.running for lane in lanes),
            held_bytes=self._limits.held.held,
            max_held_bytes=self._limits.held.limit,
            host_busy_cores=sample.host_busy_cores if sample else None,
            own_busy_cores=sample.own_busy_cores if sample else None,
            others_busy_cores=sample.others_busy_cores if sample else None,
        )

    # Wiring

    def _open_version(self, files: VersionFiles, settings: ModelSettings, digest: str) -> Lane:
        """Plan, open and warm a version, on the repository's loader thread."""
        if self._policy.mode == "polite":
            stand_back()  # the engines' and the lane's threads inherit it
        planned = self._plans.open(files, settings, digest)
        with self._lock:
            stats = self._stats.setdefault((files.name, files.version), ModelStats(files.name, files.version))
        is_apart = settings.isolation == "process"
        lane = Lane(
            files.name,
            files.version,
            planned.spec,
            planned.session,
            planned.plan,
            budget=self._budgets.of(planned.plan.device),
            queue_limits=self._limits,
            stats=stats,
            deliver=self._deliver,
            defer=self._defer,
            idle_session=planned.idle_session,
            # What runs in a child process ends with it, in nobody's way.
            free=free_now if is_apart else self._spent.add,
            ends_runs=is_apart,
        )
        with self._lock:
            self._lanes = [one for one in self._lanes if not one.is_closed] + [lane]
        return lane

    def _stand(self) -> Ground:
        """What all plans stand on; engines are opened here, when the first model asks."""
        from inferd_runtime.planning.plan import Ground

        with self._lock:
            if self._ground is None:
                engines, missing = self._open_engines()
                nvidia = [device for device in self.machine.devices if device.vendor == "NVIDIA"]
                self._ground = Ground(
                    engines=engines,
                    missing=missing,
                    cores=self._policy.ceiling,
                    has_cuda_gpu=bool(nvidia),
                    cuda_refusal="" if any(gpu.may_open for gpu in nvidia) else "; ".join(gpu.reason for gpu in nvidia),
                    engine=self.options.engine,
                    inline=self.options.inline if self._defer is not None else "off",
                    cache_dir=self.options.cache_dir,
                    objective=self.options.objective,
                    machine_digest=self.machine.digest,
                )
            return self._ground

    def _open_engines(self) -> tuple[Mapping[str, Engine], Mapping[str, str]]:
        if self._given_engines is not None:
            return self._given_engines, {}
        from inferd_runtime.engines.discover import open_engines

        return open_engines()

    def _live_lanes(self) -> list[Lane]:
        with self._lock:
            return [lane for lane in self._lanes if not lane.is_closed]

    def _look_after_lanes(self) -> None:
        lanes = self._live_lanes()
        for lane in lanes:
            lane.sweep()
        self._budget.set_aside(self._thread_load.cores(sum(lane.inline_ns for lane in lanes)))
        is_quiet = not any(lane.waiting or lane.running for lane in lanes)
        self._spent.look(self._count_accepted(), is_quiet=is_quiet)

    def _is_calm(self) -> bool:
        """Nothing is loading or served, and the machine has all but nothing to do."""
        sample = self._governor.latest if self._governor is not None else None
        is_quiet = not any(lane.waiting or lane.running for lane in self._live_lanes())
        self._accepted_in_calm = self._count_accepted()
        if sample is None or not is_quiet or not self._repository.is_ready():
            return False
        return sample.host_busy_cores < max(CALM_CORES, CALM_SHARE * sample.core_count)

    def _count_accepted(self) -> int:
        return sum(lane.accepted for lane in self._live_lanes()) - self._discounted

    def _available_bytes(self) -> int | None:
        sample = self._governor.latest if self._governor is not None else None
        return sample.memory_available_bytes if sample is not None else None

    def _is_idle(self) -> bool:
        """Nothing waits, nothing runs, and nothing came since the last time this was asked."""
        lanes = self._live_lanes()
        accepted = self._count_accepted()
        is_quiet = accepted == self._accepted_before and not any(lane.waiting or lane.running for lane in lanes)
        self._accepted_before = accepted
        return is_quiet
