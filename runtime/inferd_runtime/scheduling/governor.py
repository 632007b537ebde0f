"""The governor: gives cores back while others on this machine need them, and takes them again.

One thread samples the machine's load, has `policy.decide` say how many cores that leaves, and resizes the core budget.
While nothing is being served it samples seldom, so an idle daemon stays idle.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from inferd_runtime.scheduling.budget import CoreBudget
from inferd_runtime.scheduling.policy import Policy, Stance, decide

if TYPE_CHECKING:
    from inferd_runtime.probe.load import LoadSample

INTERVAL_S = 0.25
# While there is no work we look for it so often, and at the machine only in one of so many looks.
IDLE_LOOK_S = 0.5
IDLE_LOOKS = 4
_log = logging.getLogger(__name__)


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
        self._is_well = True
        self._idle_looks = -1
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def latest(self) -> LoadSample | None:
        """The last sample, None before the first."""
        return self._latest

    @property
    def stance(self) -> Stance:
        """What the last sample led to, and why."""
        return self._stance

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
            if self._is_well:
                _log.exception("a round of the governor failed; the core budget stays as it is")
            self._is_well = False
        else:
            self._is_well = True

    def _govern(self, sample: LoadSample) -> None:
        self._latest = sample
        before = self._stance
        self._stance = decide(before, sample, self.policy)
        if self._stance.size != before.size:
            self._budget.resize(self._stance.size)
            _log.debug("core budget %d -> %d: %s", before.size, self._stance.size, self._stance.reason)

    def _watch(self) -> None:
        while not self._stop.wait(self.tick()):
            pass
