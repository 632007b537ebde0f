"""One place in an engine host, as the parent holds it: a pipe for questions, one for answers, and shared memory.

For one caller at a time. The parent's ends close with the place; the child's are handed over, so that the pipes end
when it does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TypeVar

from inferd_runtime.engines.host import words
from inferd_runtime.engines.host.region import Region, make_region
from inferd_runtime.errors import EngineFault, EngineRefused, InferdError, InvalidRequest

_ERRORS: dict[str, type[InferdError]] = {kind.__name__: kind for kind in (EngineRefused, EngineFault, InvalidRequest)}
A = TypeVar("A", bound=words.Answer)


class Place:
    """`theirs` are the child's descriptors: questions, answers, shared memory. `is_asked`: an answer is still to come,
    which must not be taken for that to another question."""

    def __init__(self) -> None:
        self.is_asked = False
        with contextlib.ExitStack() as opened:
            asked, self.questions = _pipe(opened)
            self.answers, answered = _pipe(opened)
            self._memory = make_region()
            opened.callback(os.close, self._memory)
            self.region = Region(self._memory)
            opened.pop_all()  # nothing failed
        self.theirs = (asked, answered, self._memory)

    def hand_over(self) -> None:
        """The child has what is its own, or never will."""
        for fd in self.theirs[:2]:
            os.close(fd)

    def close(self) -> None:
        """Nobody is there any more."""
        for fd in (self.questions, self.answers, self._memory):
            os.close(fd)


def _pipe(opened: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for fd in ends:
        opened.callback(os.close, fd)
    return ends


class Visit:
    """One caller's use of a place; `watch(fd)` waits until an answer can be read."""

    def __init__(self, place: Place, watch: Callable[[int], None]) -> None:
        self.region = place.region
        self._place = place
        self._watch = watch

    def ask(self, question: words.Question, expected: type[A]) -> A:
        """Raises what the child's engine raised; EOFError and BrokenPipeError where the child is gone, ValueError where
        its answer makes no sense."""
        place = self._place
        frame = words.question_frame(question)
        place.is_asked = True
        words.put(place.questions, frame)
        answer = words.hear(place.answers, self._watch)
        place.is_asked = False
        if isinstance(answer, expected):
            return answer
        if isinstance(answer, words.Failed) and answer.kind in _ERRORS:
            raise _ERRORS[answer.kind](answer.reason)
        raise ValueError(f"{type(answer).__name__} where {expected.__name__} was expected")
