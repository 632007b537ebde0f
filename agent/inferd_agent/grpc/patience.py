"""Waits with one deadline for all: looked at together, since a timer for each costs more than most waits do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

# A wait that is too long is seen within this part of what it may take.
_LOOKS = 4


class Patience:
    """`with patience: await ...` raises TimeoutError where the wait takes `limit_s`, or up to a quarter more.

    For any number of tasks of one loop, each in one wait at a time. Nothing runs while nobody waits.
    """

    def __init__(self, limit_s: float, *, clock: Callable[[], float] | None = None) -> None:
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        self._since: dict[asyncio.Task[object], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._since[_task()] = self._clock()
        if self._timer is None:
            self._timer = self._loop.call_later(self._limit_s / _LOOKS, self._look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = _task()
        is_cut = self._since.pop(task, None) is None
        # Somebody else may have cancelled it as well, and then that counts.
        if is_cut and not task.uncancel() and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _look(self) -> None:
        oldest = self._clock() - self._limit_s
        for task, since in tuple(self._since.items()):
            if since > oldest:
                break  # those behind it came later
            del self._since[task]
            task.cancel()
        self._timer = self._loop.call_later(self._limit_s / _LOOKS, self._look) if self._since else None


def _task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("only a task can wait")
    return task
