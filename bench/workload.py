"""A neighbour: a program with real work for one core and a figure of its own, as `python -m bench.workload`.

It compresses text until its input ends, and tells every tenth of a second how many blocks it has done, with how much
CPU time. Nothing of inferd is imported.
"""

from __future__ import annotations

import bisect
import contextlib
import random
import select
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

TELL_EVERY_S = 0.1
BLOCK_BYTES = 64 << 10


@dataclass(slots=True)
class Diary:
    """What a neighbour told: moments, and what was done and spent by then."""

    at_s: list[float] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def between(self, start_s: float, end_s: float) -> tuple[float, float]:
        """(blocks a second, cores used) of a stretch of time."""
        first, last = bisect.bisect_left(self.at_s, start_s), bisect.bisect_right(self.at_s, end_s) - 1
        if last <= first:
            raise ValueError("the neighbour told nothing in that time")
        took_s = self.at_s[last] - self.at_s[first]
        return (self.blocks[last] - self.blocks[first]) / took_s, (self.cpu_s[last] - self.cpu_s[first]) / took_s


class Neighbour:
    """A running one, in a session of its own if so wished. Its diary can be read when it has ended."""

    def __init__(self, *, is_apart: bool = False) -> None:
        command = [sys.executable, "-m", "bench.workload"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=is_apart
        )
        self.diary = Diary()

    def __enter__(self) -> Self:
        return self

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Meanwhile it does nothing."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        text, _ = self._process.communicate()
        for line in text.splitlines():
            at_s, blocks, cpu_s = line.split()
            self.diary.at_s.append(float(at_s))
            self.diary.blocks.append(int(blocks))
            self.diary.cpu_s.append(float(cpu_s))


def text_block() -> bytes:
    """Words that compress as text does, the same each time."""
    rng = random.Random(1)
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(2000)]
    return b" ".join(rng.choices(words, k=BLOCK_BYTES // 5))[:BLOCK_BYTES]


def main() -> None:
    """Work until standard input ends."""
    block, done, told_s = text_block(), 0, 0.0
    while not select.select([sys.stdin], [], [], 0)[0]:
        zlib.compress(block, 6)
        done += 1
        now_s = time.monotonic()
        if now_s - told_s >= TELL_EVERY_S:
            told_s = now_s
            print(f"{now_s:.4f} {done} {time.process_time():.4f}")


if __name__ == "__main__":
    main()
