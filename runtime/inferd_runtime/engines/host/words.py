"""What parent and child of an engine host say to each other.

A pair of pipes carries one question and then its answer, each a length and a msgpack message. A question is smaller
than a pipe, so that putting one never waits, whatever the child is doing. Tensors are named here and lie elsewhere
(`region`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from inferd_runtime.engines import SessionOptions
from inferd_runtime.errors import EngineFault
from inferd_runtime.tensor import DATATYPE_NAMES, TensorSpec

# Linux pipes hold this much unless made smaller, less the four bytes of the length.
_MAX_QUESTION_BYTES = (64 << 10) - 4
_MAX_ANSWER_BYTES = 16 << 20
_LENGTH = struct.Struct("<I")
DTYPES = {name: dtype for dtype, name in DATATYPE_NAMES.items()}
T = TypeVar("T")


class Birth(msgspec.Struct, frozen=True):
    """What a child is told on its command line. `places` are its (questions, answers, shared memory) descriptors."""

    engine: str
    parent: int
    places: tuple[tuple[int, int, int], ...]
    nice: int = 0
    cores: tuple[int, ...] = ()


class Slot(msgspec.Struct, frozen=True, array_like=True):
    """Where a tensor lies in shared memory."""

    datatype: str
    shape: tuple[int, ...]
    at: int
    nbytes: int


class Open(msgspec.Struct, frozen=True, tag=True):
    path: Path
    options: SessionOptions


class Run(msgspec.Struct, frozen=True, tag=True):
    session: int
    inputs: tuple[Slot, ...]
    outputs: tuple[int, ...]


class Measure(msgspec.Struct, frozen=True, tag=True):
    session: int
    inputs: tuple[Slot, ...]
    callers: int
    seconds: float


class Close(msgspec.Struct, frozen=True, tag=True):
    session: int


Question = Open | Run | Measure | Close


class Port(msgspec.Struct, frozen=True, array_like=True):
    """A `TensorSpec` on its way."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, spec: TensorSpec) -> Port:
        return cls(spec.name, spec.datatype, spec.shape)

    def spec(self) -> TensorSpec:
        return TensorSpec(self.name, DTYPES[self.datatype], self.shape)


class Opened(msgspec.Struct, frozen=True, tag=True):
    session: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batch_symbols: tuple[str, ...]
    compile_ms: float


class Ran(msgspec.Struct, frozen=True, tag=True):
    outputs: tuple[Slot, ...]


class Measured(msgspec.Struct, frozen=True, tag=True):
    """Runs of one input by some callers at once, timed where the engine is: median, 95th percentile, runs a second."""

    runs: int
    p50_us: float
    p95_us: float
    runs_per_s: float


class Closed(msgspec.Struct, frozen=True, tag=True):
    pass


class Failed(msgspec.Struct, frozen=True, tag=True):
    """`kind` names the error: EngineRefused, EngineFault or InvalidRequest."""

    kind: str
    reason: str


Answer = Opened | Ran | Measured | Closed | Failed


def _encode(value: object) -> object:
    if isinstance(value, Path):
        return os.fsencode(value)  # a name need not be UTF-8
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _decode(kind: type, value: Any) -> object:
    return Path(os.fsdecode(value)) if issubclass(kind, Path) else value


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode)
_questions: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question, dec_hook=_decode)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def put(fd: int, frame: bytes) -> None:
    """Raises BrokenPipeError. A question never waits here, where the last one was answered."""
    left = memoryview(_LENGTH.pack(len(frame)) + frame)
    while left:
        left = left[os.write(fd, left) :]


def _take(fd: int, limit: int, wait: Callable[[int], object]) -> bytes:
    """One frame. Raises EOFError where the other side is gone, ValueError where it is not a frame."""
    (size,) = _LENGTH.unpack(_take_bytes(fd, _LENGTH.size, wait))
    if size > limit:
        raise ValueError(f"a frame of {size} bytes")
    return _take_bytes(fd, size, wait)


def _take_bytes(fd: int, count: int, wait: Callable[[int], object]) -> bytes:
    taken = bytearray()
    while len(taken) < count:
        wait(fd)
        part = os.read(fd, count - len(taken))
        if not part:
            raise EOFError
        taken += part
    return bytes(taken)


def question_frame(question: Question) -> bytes:
    """Raises EngineFault."""
    frame = _encoder.encode(question)
    if len(frame) > _MAX_QUESTION_BYTES:
        raise EngineFault("a model with so many inputs cannot run in a process of its own")
    return frame


def hear(fd: int, wait: Callable[[int], object]) -> Answer:
    """The answer; `wait(fd)` returns when there is something to read. Raises EOFError, ValueError."""
    try:
        return _answers.decode(_take(fd, _MAX_ANSWER_BYTES, wait))
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None


def next_question(fd: int) -> Question:
    """Waits for a question. Raises EOFError."""
    return _questions.decode(_take(fd, _MAX_QUESTION_BYTES, lambda fd: None))


def answer(fd: int, answer: Answer) -> None:
    put(fd, _encoder.encode(answer))
