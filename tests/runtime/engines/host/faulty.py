"""An engine host with an engine that does what native code may do; a program of the tests, out of the product's reach.

A model's name says what goes wrong on opening. Its session returns what it is given, unless the first value is a
`Fault`. Where there is a file, its text is the input's name; where it is a pipe, a run that hangs writes to it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

import numpy as np

from inferd_runtime.engines import Array, SessionOptions
from inferd_runtime.engines.host import HostProcess
from inferd_runtime.engines.host.child import serve
from inferd_runtime.errors import EngineFault, EngineRefused, InvalidRequest
from inferd_runtime.tensor import TensorSpec

NAME = "faulty"
PROGRAM = (sys.executable, "-P", __file__)


class Fault(IntEnum):
    """What a run does whose first value is this."""

    SEGFAULT = 101
    ABORT = 102
    EXIT = 103
    HANG = 104
    EAT = 105
    FORK = 106
    REPORT = 107
    INVALID = 108
    SURPRISE = 109


class FaultySession:
    outputs = (TensorSpec("y", np.dtype(np.float32), (-1, -1)),)
    batch_symbols = ("N", "N")

    def __init__(self, path: Path) -> None:
        self._path = path
        name = path.read_text() if path.is_file() else "x"
        self.inputs = (TensorSpec(name, np.dtype(np.float32), (-1, -1)),)
        self._eaten: list[Array] = []

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        x = inputs[0]
        self._fail(int(np.nan_to_num(x.flat[0])) if x.size else 0)
        return [x.copy() for _ in outputs]

    def close(self) -> None:
        pass

    def _fail(self, fault: int) -> None:
        match fault:
            case Fault.SEGFAULT:
                ctypes.string_at(0)
            case Fault.ABORT:
                os.abort()
            case Fault.EXIT:
                os._exit(3)
            case Fault.HANG:
                if self._path.is_fifo():
                    os.write(os.open(self._path, os.O_RDWR), b"!")  # stays open, so that the byte stays too
                ctypes.PyDLL(None).pause()  # and no other thread of this interpreter runs either
            case Fault.EAT:
                for _ in range(256):  # an end, in case nobody puts one soon
                    self._eaten.append(np.ones(4 << 20, np.uint8))
                ctypes.CDLL(None).pause()
            case Fault.FORK:
                fork_holding(64 << 20)
            case Fault.REPORT:
                raise EngineFault("the engine says so")
            case Fault.INVALID:
                raise InvalidRequest("the values are at fault")
            case Fault.SURPRISE:
                raise RuntimeError("nobody foresaw this")


def fork_holding(nbytes: int) -> None:
    """A child of this process that lives on with so much memory of its own."""
    ready, done = os.pipe()
    if os.fork() == 0:
        held = np.ones(nbytes, np.uint8)
        os.write(done, b"!")
        while held.any():
            ctypes.CDLL(None).pause()
    os.read(ready, 1)


class FaultyEngine:
    name = NAME
    version = "1"

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)

    def reads(self, path: Path) -> bool:
        return True

    def open(self, path: Path, options: SessionOptions) -> FaultySession:
        match path.name:
            case "refused":
                raise EngineRefused("this file is not for me")
            case "crashing":
                ctypes.string_at(0)
        return FaultySession(path)


def faulty_host(name: str = NAME, places: int = 2, **more: object) -> HostProcess:
    """A host of the faulty engine."""
    return HostProcess(name, places=places, program=PROGRAM, **more)  # type: ignore[arg-type]


if __name__ == "__main__":
    serve(sys.argv[1], {NAME: FaultyEngine()})
