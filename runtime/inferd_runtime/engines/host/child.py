"""The child's side: opens, runs and measures sessions as its parent asks, and ends with its parent.

Every place has a thread that answers one question after another, so as many runs go on at once as there are places.
What an engine raises is an answer; what it does beyond that (a crash, a hang) is for the parent to see.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from inferd_runtime.engines import Engine, Session
from inferd_runtime.engines.host import words
from inferd_runtime.engines.host.measure import measure
from inferd_runtime.engines.host.region import Region
from inferd_runtime.errors import EngineFault, EngineRefused, InferdError, InvalidRequest

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_log = logging.getLogger(__name__)


def serve(birth: str, engines: Mapping[str, Engine]) -> None:
    """Live until the parent closes its ends of the pipes, or dies."""
    told = msgspec.json.decode(birth, type=words.Birth)
    _settle_in(told)
    host = _Host(engines[told.engine])
    for place in told.places:
        threading.Thread(target=host.serve, args=place, daemon=True).start()
    threading.Event().wait()  # a thread that sees the end ends the process


def _settle_in(told: words.Birth) -> None:
    """Die with the parent, before others when memory ends, hand no descriptor on, and leave no core file: callers'
    inputs would be in it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != told.parent:  # it died before it could be tied
        os._exit(0)
    for fd in itertools.chain.from_iterable(told.places):
        os.set_inheritable(fd, False)
    with contextlib.suppress(OSError):  # /proc may be out of reach
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if told.nice:
        os.nice(told.nice)
    if told.cores:
        os.sched_setaffinity(0, told.cores)


class _Host:
    """The sessions of this process; any place may use any of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sessions: dict[int, Session] = {}
        self._numbers = itertools.count()

    def serve(self, questions: int, answers: int, memory: int) -> None:
        """One place's life."""
        region = Region(memory)
        try:
            while True:
                words.answer(answers, self._answer(words.next_question(questions), region))
        except (EOFError, BrokenPipeError):
            os._exit(0)
        except BaseException:
            _log.exception("the engine host fails")
            os._exit(1)

    def _answer(self, question: words.Question, region: Region) -> words.Answer:
        try:
            match question:
                case words.Open():
                    return self._open(question)
                case words.Run():
                    return self._run(question, region)
                case words.Measure():
                    return self._measure(question, region)
                case words.Close():
                    return self._close(question)
        except InferdError as error:
            return words.Failed(_kind(error), str(error))
        except Exception as error:
            _log.exception("the engine fails in a way nobody foresaw")
            return words.Failed("EngineFault", f"{type(error).__name__}: {error}"[:400])

    def _open(self, question: words.Open) -> words.Opened:
        begin = time.perf_counter()
        session = self._engine.open(question.path, question.options)
        took_ms = (time.perf_counter() - begin) * 1000
        number = next(self._numbers)
        self._sessions[number] = session
        inputs = tuple(map(words.Port.of, session.inputs))
        outputs = tuple(map(words.Port.of, session.outputs))
        return words.Opened(number, inputs, outputs, session.batch_symbols, took_ms)

    def _run(self, question: words.Run, region: Region) -> words.Ran:
        inputs = [region.get(slot) for slot in question.inputs]
        outputs = self._sessions[question.session].run(inputs, question.outputs)
        return words.Ran(region.put(outputs, behind=question.inputs))

    def _measure(self, question: words.Measure, region: Region) -> words.Measured:
        inputs = [region.get(slot) for slot in question.inputs]
        return measure(self._sessions[question.session], inputs, question.callers, question.seconds)

    def _close(self, question: words.Close) -> words.Closed:
        """Free a session, and what it held, so that the next one's memory can be told from it."""
        session = self._sessions.pop(question.session, None)
        if session is not None:
            session.close()
            del session
            gc.collect()
            with contextlib.suppress(AttributeError):  # only glibc has it
                _libc.malloc_trim(0)
        return words.Closed()


def _kind(error: InferdError) -> str:
    for kind in (EngineRefused, InvalidRequest):
        if isinstance(error, kind):
            return kind.__name__
    return EngineFault.__name__
