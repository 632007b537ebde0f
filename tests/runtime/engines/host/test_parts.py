"""The parts of an engine host that need no process: shared memory, frames, timing."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from inferd_runtime.engines import Array, SessionOptions
from inferd_runtime.engines.host import words
from inferd_runtime.engines.host.measure import measure
from inferd_runtime.engines.host.memory import private_bytes
from inferd_runtime.engines.host.region import Region, make_region
from inferd_runtime.engines.host.words import Slot
from inferd_runtime.errors import EngineFault
from tests.runtime.engines.host.faulty import FaultySession


@pytest.fixture
def memory() -> Iterator[int]:
    fd = make_region()
    yield fd
    os.close(fd)


def test_both_sides_see_what_one_put(memory: int) -> None:
    """Tensors lie one behind the other, aligned, and grow the region for both sides."""
    mine, theirs = Region(memory), Region(memory)
    texts = np.array([b"", b"\0x\0", b"y" * 999], object)
    inputs = [np.arange(7, dtype=np.int8), texts, np.array(3.5)]
    asked = mine.put(inputs)
    answered = theirs.put([np.full(1 << 20, 9, np.uint8)], behind=asked)
    for slot, array in zip((*asked, *answered), (*inputs, np.full(1 << 20, 9, np.uint8)), strict=True):
        for side in (mine, theirs):
            np.testing.assert_array_equal(side.get(slot), array)
            assert slot.at % 64 == 0
    assert not theirs.get(asked[0]).flags.writeable


@pytest.mark.parametrize(
    "slot",
    [
        Slot("FP33", (1,), 0, 4),
        Slot("FP32", (-1,), 0, -4),
        Slot("FP32", (1,), -8, 4),
        Slot("FP32", (2,), 0, 4),
        Slot("FP32", (1 << 60,), 0, 1 << 62),
        Slot("BYTES", (1 << 50,), 0, 0),
        Slot("BYTES", (1,), 0, 100),
        Slot("FP32", (1 << 31, 1 << 31, 4), 0, 0),
    ],
)
def test_a_slot_that_makes_no_sense_is_refused(memory: int, slot: Slot) -> None:
    """A child gone mad cannot make its parent read beyond what is there."""
    with pytest.raises(ValueError, match=r"tensor|shared memory|trunc|array|sequence"):
        Region(memory).get(slot)


def test_shared_memory_cannot_be_taken_away(memory: int) -> None:
    """Neither side can shrink a region under the other, which would be a bus error."""
    with pytest.raises(PermissionError):
        os.ftruncate(memory, 0)


def test_frames_carry_paths_and_options() -> None:
    """What is asked arrives, whatever bytes a file's name has."""
    there, here = os.pipe()
    path = Path(os.fsdecode(b"/m/\xff.onnx"))
    for options in (SessionOptions(), SessionOptions("cpu", 2, 3, "f32", Path("/cache"), 4)):
        words.put(here, words.question_frame(words.Open(path, options)))
        assert words.next_question(there) == words.Open(path, options)
    os.close(here)
    with pytest.raises(EOFError):
        words.next_question(there)
    os.close(there)


def test_a_question_never_waits_for_room() -> None:
    """One that might not fit into the pipe is refused, unsent."""
    slots = tuple(Slot("FP32", (1,), 0, 4) for _ in range(10_000))
    with pytest.raises(EngineFault, match="so many inputs"):
        words.question_frame(words.Run(0, slots, (0,)))


class TickingSession(FaultySession):
    """Every run moves the clock on by the next of some microseconds."""

    def __init__(self, took_us: Sequence[int]) -> None:
        super().__init__(Path("model"))
        self._took_us = itertools.cycle(took_us)
        self.now_ns = 0

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        self.now_ns += next(self._took_us) * 1000
        return []


def test_figures_are_of_the_runs_after_the_first() -> None:
    """Median, 95th percentile and rate, on a clock that only runs move; the dear first run is not in them."""
    session = TickingSession([9000, *[100, 300] * 10_000])
    found = measure(session, [], 1, 0.004, lambda: session.now_ns)
    assert (found.runs, found.p50_us, found.p95_us, found.runs_per_s) == (20, 200, 300, 5000)


def test_a_run_longer_than_the_time_counts() -> None:
    """At least one run is timed, however long it takes."""
    session = TickingSession([10_000])
    found = measure(session, [], 1, 0.0, lambda: session.now_ns)
    assert (found.runs, found.p50_us, found.runs_per_s) == (1, 10_000, 100)


def test_every_caller_counts() -> None:
    """What several callers reach at once adds up, and one that fails fails all."""
    found = measure(FaultySession(Path("model")), [np.zeros((1, 1), np.float32)], 3, 0.0)
    assert found.runs == 3
    with pytest.raises(EngineFault, match="the engine says so"):
        measure(FaultySession(Path("model")), [np.full((1, 1), 107, np.float32)], 3, 0.0)


def test_memory_of_nobody_is_none() -> None:
    """A process that is gone holds nothing; one that lives holds something."""
    assert private_bytes(0x3FFFFFFF) == 0
    assert private_bytes(os.getpid()) > 1 << 20
