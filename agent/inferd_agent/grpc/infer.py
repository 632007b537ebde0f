"""ModelInfer and ModelStreamInfer: the hot path from message to answer.

What takes long on large messages leaves the loop. A stream's requests run side by side, at most WINDOW of them, and
are answered in their order; further ones are not read until there is room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from inferd_agent.bridge import Bridge, Result
from inferd_agent.grpc import answers
from inferd_agent.grpc.requests import Asked, decode
from inferd_agent.identity import Principal, require
from inferd_agent.inference import infer_in_regions, job_of, labels_of
from inferd_agent.memory import Regions, uses_regions
from inferd_runtime import Job

WINDOW = 32
# From this many bytes on, reading or writing tensors leaves the loop.
_LONG_BYTES = 256 << 10
T = TypeVar("T")


class Infer:
    """Answers inference requests. `holding` counts bytes as held meanwhile."""

    def __init__(
        self,
        bridge: Bridge,
        regions: Regions,
        pool: Executor,
        *,
        holding: Callable[[int], AbstractContextManager[None]],
        request_timeout_s: float,
        next_id: Callable[[], str],
    ) -> None:
        self._bridge = bridge
        self._regions = regions
        self._pool = pool
        self._holding = holding
        self._timeout_ns = int(request_timeout_s * 1e9)
        self._next_id = next_id

    async def read(self, message: bytes) -> Asked:
        """Decode a message. Raises ProtocolError, InvalidRequest."""
        return decode(message) if len(message) < _LONG_BYTES else await self._off_loop(decode, message)

    async def answer(
        self,
        caller: Principal,
        asked: Asked,
        left_s: float | None,
        *,
        is_streamed: bool = False,
        is_lone: bool = False,
    ) -> bytes:
        """Run a request and write its answer. `left_s` is what the caller's own deadline leaves; `is_lone`: no other
        call is under way."""
        arrived_ns = time.monotonic_ns()
        require(caller, ("infer",), asked.model)
        within_ns = self._timeout_ns if left_s is None else min(self._timeout_ns, max(int(left_s * 1e9), 0))
        request = asked.request

        def make_job() -> Job:
            return job_of(
                request, caller, asked.model, asked.version,
                arrived_ns=arrived_ns, within_ns=within_ns, request_id=self._next_id(),
            )  # fmt: skip

        if uses_regions(request):
            with self._regions.use(caller.owner, request) as use, self._holding(use.copied_bytes):
                job, result = await infer_in_regions(use, make_job, self._bridge, self._pool)
        else:
            job = make_job()
            result = await self._bridge.infer(job, is_lone=is_lone)
        is_final = is_streamed and asked.wants_final
        if sum([array.nbytes for array in result.values()]) < _LONG_BYTES:
            return self._encode(asked, job, result, is_final)
        return await self._off_loop(self._encode, asked, job, result, is_final)

    def _encode(self, asked: Asked, job: Job, result: Result, is_final: bool) -> bytes:
        request = asked.request
        for output in request.outputs:
            if output.classification:
                labels, is_batched = labels_of(self._bridge, job)
                return answers.encode(
                    request, job.model, job.version or 0, result, labels=labels, batched=is_batched, is_final=is_final
                )
        return answers.encode(request, job.model, job.version or 0, result, is_final=is_final)

    async def _off_loop(self, act: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, act, *given)


class Stream:
    """One stream: `answers` yields in the order of the requests, and ends after the last of them.

    `read` gives the next message, None at the end. `answer` must raise nothing but what ends the stream.
    """

    def __init__(
        self, read: Callable[[], Awaitable[bytes | None]], answer: Callable[[bytes], Coroutine[Any, Any, bytes]]
    ) -> None:
        self._read = read
        self._answer = answer
        self._room = asyncio.Semaphore(WINDOW)
        self._works: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read_all())

    async def answers(self) -> AsyncGenerator[bytes, None]:
        """Everything that comes of the requests. Leaving early cancels what is under way."""
        work: asyncio.Task[bytes] | None = None
        try:
            while (work := await self._works.get()) is not None:
                yield await work
                self._room.release()
            await asyncio.wait((self._reader,))
            if not self._reader.cancelled():
                self._reader.result()
        finally:
            left = [self._reader, *([work] if work else []), *self._unanswered()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def end(self) -> None:
        """Read no more; what was read is answered."""
        self._reader.cancel()

    async def _read_all(self) -> None:
        try:
            while True:
                await self._room.acquire()
                message = await self._read()
                if message is None:
                    break
                self._works.put_nowait(asyncio.create_task(self._answer(message)))
        finally:
            self._works.put_nowait(None)

    def _unanswered(self) -> Iterator[asyncio.Task[bytes]]:
        while not self._works.empty():
            work = self._works.get_nowait()
            if work is not None:
                yield work
