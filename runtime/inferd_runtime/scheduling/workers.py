"""The threads of a lane: wait for a job, claim cores, take whatever has gathered by then, run it, again.

Nothing is held back to wait for company. A worker that leaves more waiting claims cores anew in the step that gives its
own back, so that a lane is in line whenever it has work. Where the plan has a second session for an idle queue, a job
that comes alone runs there if all of its cores are free.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from inferd_runtime.scheduling.batch import Runner
from inferd_runtime.scheduling.budget import Claim, CoreBudget, Share
from inferd_runtime.scheduling.desk import Desk
from inferd_runtime.spec import Plan

_JOIN_WAIT_S = 1.0

_log = logging.getLogger(__name__)


class Workers:
    """Up to `plan.streams` threads that serve one queue. `idle_runner` is for `plan.idle`."""

    def __init__(
        self,
        title: str,
        plan: Plan,
        desk: Desk,
        budget: CoreBudget,
        make_runner: Callable[[], Runner],
        idle_runner: Runner | None,
    ) -> None:
        self._title = title
        self._plan = plan
        self._desk = desk
        self._queue = desk.queue
        self._sizing = desk.sizing
        self._budget = budget
        self._share = Share()
        self._make_runner = make_runner
        self._idle_runner = idle_runner
        self._deciding = threading.Lock()  # who runs a lone job on the idle session
        self._threads: list[threading.Thread] = []
        self._start_one()

    def join(self) -> None:
        """Wait a moment for idle threads to end; the queue is closed."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_JOIN_WAIT_S)

    def _start_one(self) -> None:
        """The lane's maker starts the first worker, and the newest worker the next one when it goes to work, so that
        one is free up to `plan.streams`. `submit` starts none: that blocks, and its thread is the event loop's."""
        number = len(self._threads)
        thread = threading.Thread(target=self._work, args=(number,), name=f"{self._title}/{number}", daemon=True)
        self._threads.append(thread)  # before it runs: it counts them, to see whether it is the newest
        try:
            thread.start()
        except RuntimeError:
            self._threads.remove(thread)
            raise

    def _work(self, number: int) -> None:
        """A worker's life: one batch after another, until the queue is closed and empty."""
        runner = self._make_runner()
        claim: Claim | None = None
        while True:
            if claim is None:
                if not self._queue.wait():
                    return
                if self._idle_runner is not None and self._run_alone(self._idle_runner):
                    continue
                claim = self._ask()
            if not claim.wait():
                return
            claim = self._serve(runner, claim, number)

    def _serve(self, runner: Runner, claim: Claim, number: int) -> Claim | None:
        """Run the next batch; returns the claim for the one after it, if that waits already."""
        batch, dead = self._queue.take(self._sizing.rows, self._at_once())
        if dead:
            self._desk.bury(dead)
        if not batch:
            self._budget.release(claim)
            return None
        if number + 1 == len(self._threads) < self._plan.streams:
            self._start_next()
        is_whole = self._desk.run(runner, batch)
        self._queue.rest()
        following = self._give_back(claim)
        self._desk.finish(batch, is_whole)
        return following

    def _at_once(self) -> int:
        """How many batches may run at once now, as far as the cores go; the caller holds its permits already."""
        return min(self._plan.streams, self._queue.busy + 1 + self._budget.free // self._plan.threads)

    def _give_back(self, claim: Claim) -> Claim | None:
        if self._queue.waiting:
            return self._ask(claim)
        self._budget.release(claim)
        return None

    def _start_next(self) -> None:
        try:
            self._start_one()
        except RuntimeError as error:
            _log.warning(
                "%s: goes on with %d threads, for another cannot start: %s", self._title, len(self._threads), error
            )

    def _ask(self, instead_of: Claim | None = None) -> Claim:
        """Line up for the cores of one batch of what waits now."""
        rows = min(self._queue.waiting_rows, self._sizing.rows)
        run_ns = self._sizing.profile.typical_ns(max(rows, 1))
        return self._budget.ask(self._plan.threads, self._share, run_ns, instead_of)

    def _run_alone(self, runner: Runner) -> bool:
        """Run what waits on the idle session, if it came alone and the cores are free; False when it was left.

        Workers decide one after the other: one that finds the job taken must not claim cores for nothing, or the next
        lone job would find them claimed.
        """
        shape = self._plan.idle
        with self._deciding:
            if not self._queue.waiting:
                return True
            if shape is None or not self._queue.is_alone():
                return False
            claim = self._budget.ask_now(shape.threads, self._share, shape.run_us * 1000.0)
            if claim is None:
                return False
            batch, dead = self._queue.take(max(shape.batch, 1))  # nobody is alone until it rests
        if dead:
            self._desk.bury(dead)
        is_whole = bool(batch) and self._desk.run(runner, batch)
        if batch:
            self._queue.rest()
        self._budget.release(claim)
        if batch:
            self._desk.finish(batch, is_whole, teaches=False)
        return True
