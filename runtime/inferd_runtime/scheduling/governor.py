"""The governor: gives cores back while others on this machine need them.

`decide` is a pure function of the last stance, one load sample and the policy. It shrinks at once, and after calm takes
what was free all the while; the gap between both thresholds keeps it still under a constant load. Invariant: the size
never leaves floor..ceiling. One thread samples; while nothing is being served it samples seldom, so an idle daemon
stays idle.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inferd_runtime.scheduling.budget import CoreBudget

if TYPE_CHECKING:
    from inferd_runtime.probe.load import LoadSample

# We give a core back once others use more than this much of it, and take it again when they use less than the other.
YIELD_ABOVE_CORES = 0.75
REGAIN_BELOW_CORES = 0.25
# Room must have been there for so long before the budget grows.
CALM_S = 0.75
INTERVAL_S = 0.25
# While there is no work we look for it so often, and at the machine only in one of so many looks.
IDLE_LOOK_S = 0.5
IDLE_LOOKS = 4
MODES = ("polite", "fixed")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the governor may do. `host_cores` are the cores that we and everybody else here share.

    "polite" moves between `floor` and `ceiling`; "fixed" stays at the ceiling.
    """

    floor: int
    ceiling: int
    host_cores: float
    mode: str = "polite"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"the governor is one of {', '.join(MODES)}, not {self.mode!r}")
        if not 1 <= self.floor <= self.ceiling:
            raise ValueError(f"the core floor {self.floor} must be from 1 to the ceiling {self.ceiling}")


@dataclass(frozen=True, slots=True)
class Stance:
    """The size chosen; for how long there has been room for more, and for how many cores all that time."""

    size: int
    calm_s: float = 0.0
    room: int = 0


def decide(stance: Stance, sample: LoadSample, policy: Policy) -> Stance:
    """The next stance; `size` is always from the policy's floor to its ceiling."""
    if policy.mode == "fixed":
        return Stance(policy.ceiling)
    size = min(max(stance.size, policy.floor), policy.ceiling)
    free = policy.host_cores - sample.others_busy_cores
    if size > free + YIELD_ABOVE_CORES:
        return Stance(max(policy.floor, math.floor(free + YIELD_ABOVE_CORES)))
    room = min(policy.ceiling, math.floor(free + REGAIN_BELOW_CORES))
    if room <= size:
        return Stance(size)
    if stance.calm_s:
        room = min(room, stance.room)
    calm_s = stance.calm_s + sample.window_s
    return Stance(size, calm_s, room) if calm_s < CALM_S else Stance(room)


class Governor:
    """Resizes a core budget as the host's load asks, on a thread of its own.

    `chore` is called every round, before sampling, for what else must be looked after now and then.
    """

    def __init__(
        self,
        budget: CoreBudget,
        policy: Policy,
        sample: Callable[[], LoadSample],
        *,
        is_idle: Callable[[], bool],
        chore: Callable[[], None],
    ) -> None:
        self.policy = policy
        self._budget = budget
        self._take_sample = sample
        self._is_idle = is_idle
        self._chore = chore
        self._stance = Stance(budget.size)
        self._latest: LoadSample | None = None
        self._is_sampling = True
        self._idle_looks = -1
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def latest(self) -> LoadSample | None:
        """The last sample, None before the first."""
        return self._latest

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, name="governor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def tick(self) -> float:
        """One round: the chore, a sample, the budget resized; returns the seconds until the next."""
        is_idle = self._is_idle()
        self._idle_looks = (self._idle_looks + 1) % IDLE_LOOKS if is_idle else 0
        if self._idle_looks == 0:
            self._look_after()
        return IDLE_LOOK_S if is_idle else INTERVAL_S

    def _look_after(self) -> None:
        try:
            self._chore()
            self._govern(self._take_sample())
        except Exception:
            if self._is_sampling:
                _log.exception("a round of the governor failed; the core budget stays as it is")
            self._is_sampling = False
        else:
            self._is_sampling = True

    def _govern(self, sample: LoadSample) -> None:
        self._latest = sample
        before = self._stance
        self._stance = decide(before, sample, self.policy)
        if self._stance.size != before.size:
            self._budget.resize(self._stance.size)
            _log.info("core budget %d -> %d: %s", before.size, self._stance.size, sample)

    def _watch(self) -> None:
        while not self._stop.wait(self.tick()):
            pass
