"""Feeds systemd's watchdog while the daemon does what it is for: the event loop turns and inferences go through.

One ready model after the other is looked at. If it answered somebody since the last look, it works; if not, it is asked
something made up. A model that does not answer is asked again and again, and nothing is fed meanwhile, until it answers
or systemd ends the daemon. With no ready model it is enough that the loop turns.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferd_agent.bridge import Bridge
from inferd_agent.systemd import Notifier
from inferd_runtime import Closed, DeadlineExceeded, InferdError, Job, ModelNotFound, ModelNotReady, Overloaded, State

log = logging.getLogger(__name__)

Inputs = Mapping[str, np.ndarray[Any, Any]]

# Of the watchdog's time: between two looks, and how long an answer may take. Together less than all of it.
LOOK_SHARE, ANSWER_SHARE = 1 / 4, 1 / 2
PRINCIPAL = "watchdog"
_PRIORITY = 9


@dataclass(slots=True)
class _Known:
    """One model version: answers counted at the last look, inputs not tried yet, and some that it took."""

    answers: int
    guesses: Iterator[Inputs]
    inputs: Inputs | None = None


class Watchdog:
    """Looks after one daemon. Lives on the event loop. `trouble` is what was wrong at the last look, else empty."""

    def __init__(self, bridge: Bridge, notifier: Notifier, *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._bridge = bridge
        self._notifier = notifier
        self._clock_ns = clock_ns
        self._known: dict[tuple[str, int], _Known] = {}
        self._at: tuple[str, int] | None = None
        self.trouble = ""

    async def watch(self) -> None:
        """Look and feed until cancelled; returns at once where nobody wants to be fed."""
        watchdog_s = self._notifier.watchdog_s
        while watchdog_s:
            await asyncio.sleep(watchdog_s * LOOK_SHARE)
            await self.feed(watchdog_s * ANSWER_SHARE)

    async def feed(self, answer_s: float) -> None:
        """Look once, and feed if all is well; an answer may take `answer_s`."""
        trouble = await self.look(answer_s)
        if trouble:
            log.error("the watchdog is not fed: %s", trouble)
        else:
            self._notifier.watchdog()
            if self.trouble:
                log.info("the watchdog is fed again")
        self.trouble = trouble

    async def look(self, answer_s: float) -> str:
        """What is wrong with the model whose turn it is, empty where it works."""
        key = self._choose()
        if key is None:
            return ""
        known, answers = self._known[key], self._count_answers(key)
        trouble = "" if answers > known.answers else await self._ask(key, known, answer_s)
        known.answers = self._count_answers(key)
        if trouble:
            return f"{key[0]} version {key[1]} {trouble}"
        self._at = key
        return ""

    def _choose(self) -> tuple[str, int] | None:
        """The ready version after the one that last worked."""
        ready = [(model.name, model.version) for model in self._bridge.runtime.models() if model.state is State.READY]
        self._known = {key: self._known.get(key) or self._begin(key) for key in ready}
        after = [key for key in ready if self._at is not None and key > self._at]
        return next(iter(after or ready), None)

    def _begin(self, key: tuple[str, int]) -> _Known:
        try:
            guesses = self._bridge.runtime.guess_inputs(*key)
        except ModelNotFound:  # it went away meanwhile
            guesses = iter(())
        return _Known(self._count_answers(key), guesses)

    def _count_answers(self, key: tuple[str, int]) -> int:
        try:
            return sum(each.success_count for each in self._bridge.runtime.stats(*key))
        except ModelNotFound:
            return 0

    async def _ask(self, key: tuple[str, int], known: _Known, answer_s: float) -> str:
        """Run one inference; why it did not go through, else empty.

        An engine that refuses a guess is alive; one that refuses what it took before has a fault.
        """
        inputs = known.inputs or await asyncio.to_thread(next, known.guesses, None)
        if inputs is None:
            return ""
        deadline_ns = self._clock_ns() + int(answer_s * 1e9)
        job = Job(key[0], inputs, version=key[1], deadline_ns=deadline_ns, priority=_PRIORITY, principal=PRINCIPAL)
        try:
            self._bridge.runtime.discount(1)
            await self._bridge.infer(job)
        except (DeadlineExceeded, Overloaded) as error:
            return f"does not answer: {error}"
        except (Closed, ModelNotFound, ModelNotReady):
            return ""  # it went away meanwhile
        except InferdError as error:
            return f"fails at what it could do before: {error}" if known.inputs is not None else ""
        known.inputs = inputs
        return ""
