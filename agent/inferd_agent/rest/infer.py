"""`POST /v2/models/{m}/infer`: the hot path from body to answer.

Everything that takes long on large messages (JSON, compression) leaves the loop; small ones stay, since a thread hop
costs more than they do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

from inferd.protocol import Request, decode_request, encode_response, parse_header_length
from inferd_agent.bridge import Bridge, Result
from inferd_agent.inference import infer_in_regions, job_of, labels_of
from inferd_agent.load import load_report
from inferd_agent.memory import Regions, uses_regions
from inferd_agent.rest.answers import JSON, OCTETS, Answer, Buffers
from inferd_agent.rest.bodies import Bodies
from inferd_agent.rest.call import Call
from inferd_agent.rest.encodings import choose_encoding, compress
from inferd_agent.rest.headers import ACCEPT_ENCODING, HEADER_LENGTH, LOAD_FORMAT, TIMEOUT, TIMING
from inferd_agent.rest.routes import Endpoint, Target
from inferd_runtime import InvalidRequest, Job

_MAX_TIMEOUT_MS = 86_400_000
# From this much JSON on, reading and writing it leaves the loop.
_LONG_JSON_BYTES = 256 << 10
_LONG_JSON_ELEMENTS = 32 << 10
_LONG_COMPRESS_BYTES = 32 << 10
T = TypeVar("T")


class Infer:
    """Answers inference requests."""

    def __init__(
        self, bridge: Bridge, bodies: Bodies, regions: Regions, pool: Executor, *, request_timeout_s: float
    ) -> None:
        self._bridge = bridge
        self._bodies = bodies
        self._regions = regions
        self._pool = pool
        self._timeout_ns = int(request_timeout_s * 1e9)
        self.endpoint = Endpoint("infer", "POST", self.handle, ("infer",))

    def table(self) -> dict[str, Endpoint]:
        """The paths."""
        return {f"/v2/models/{{m}}{version}/infer": self.endpoint for version in ("", "/versions/{n}")}

    async def handle(self, call: Call, target: Target) -> Answer:
        """Read, decode, run, encode."""
        arrived_ns = time.monotonic_ns()
        headers = call.message.headers
        header_length = parse_header_length(headers.get(HEADER_LENGTH))
        body = await self._bodies.read(call, header_length)
        if (len(body) if header_length is None else header_length) < _LONG_JSON_BYTES:
            request = decode_request(body, header_length)
        else:
            request = await self._off_loop(decode_request, body, header_length)
        answer = await self._run(call, target, request, arrived_ns)
        accept = headers.get(ACCEPT_ENCODING)
        encoding = choose_encoding(accept) if accept else ""
        return await self._compressed(answer, encoding) if encoding else answer

    def begin(
        self, call: Call, target: Target, done: Callable[[Request, Job, Result | None, Exception | None], None]
    ) -> Job | Coroutine[Any, Any, Answer]:
        """As `handle`, without waiting, for a small body that is there and an answer that is not compressed.

        Where tensors lie in regions there is waiting: the rest comes back to be awaited, and `done` is not called.
        """
        arrived_ns = time.monotonic_ns()
        header_length = parse_header_length(call.message.headers.get(HEADER_LENGTH))
        request = decode_request(self._bodies.take(call), header_length)
        if uses_regions(request):
            return self._run(call, target, request, arrived_ns)
        job = self._job(call, target, request, arrived_ns)
        self._bridge.submit(job, lambda result, error: done(request, job, result, error))
        return job

    def end(self, call: Call, request: Request, job: Job, result: Result) -> Answer | None:
        """The answer to what `begin` began; None where writing it takes so long that it has to leave the loop."""
        if _is_long(request, result):
            return None
        return self._answer(call, job, *self._encode_now(request, job, result))

    async def end_slowly(self, call: Call, request: Request, job: Job, result: Result) -> Answer:
        """The answer, made off the loop."""
        return self._answer(call, job, *await self._encode(request, job, result))

    async def _run(self, call: Call, target: Target, request: Request, arrived_ns: int) -> Answer:
        """A decoded request's answer, not compressed."""
        if uses_regions(request):
            with self._regions.use(call.principal.owner, request) as use:
                self._bodies.hold(call, use.copied_bytes)
                job, result = await infer_in_regions(
                    use, partial(self._job, call, target, request, arrived_ns), self._bridge, self._pool
                )
        else:
            job = self._job(call, target, request, arrived_ns)
            result = await self._bridge.infer(job)
        return self._answer(call, job, *await self._encode(request, job, result))

    def _job(self, call: Call, target: Target, request: Request, arrived_ns: int) -> Job:
        return job_of(
            request, call.principal, target.model, target.version,
            arrived_ns=arrived_ns,
            within_ns=self.allowed_ns(call.message.headers.get(TIMEOUT)),
            request_id=call.id,
        )  # fmt: skip

    def allowed_ns(self, header: str | None) -> int:
        """How long a request may take: the configured bound, or less where its header says so."""
        if header is None:
            return self._timeout_ns
        if not (header.isascii() and header.isdigit() and len(header) <= 9 and int(header) <= _MAX_TIMEOUT_MS):
            raise InvalidRequest(f"{TIMEOUT} is a plain number of milliseconds, got {header[:40]!r}")
        return min(self._timeout_ns, int(header) * 1_000_000)

    async def _encode(self, request: Request, job: Job, result: Result) -> tuple[int | None, Buffers]:
        if _is_long(request, result):
            return await self._off_loop(self._encode_now, request, job, result)
        return self._encode_now(request, job, result)

    def _encode_now(self, request: Request, job: Job, result: Result) -> tuple[int | None, Buffers]:
        for output in request.outputs:
            if output.classification:
                return self._classify(request, job, result)
        return encode_response(request, job.model, str(job.version), result)

    def _classify(self, request: Request, job: Job, result: Result) -> tuple[int | None, Buffers]:
        labels, is_batched = labels_of(self._bridge, job)
        return encode_response(request, job.model, str(job.version), result, labels=labels, batched=is_batched)

    def _answer(self, call: Call, job: Job, header_length: int | None, buffers: Buffers) -> Answer:
        fields, headers = JSON, call.message.headers
        if header_length is not None:
            fields = b"%bInference-Header-Content-Length: %d\r\n" % (OCTETS, header_length)
        if headers.get(TIMING) == "1":
            fields += _timing(job)
        form = headers.get(LOAD_FORMAT)
        if form is not None and call.principal.has_scope("read"):
            fields += self._load(form)
        return Answer(200, fields, buffers)

    def _load(self, form: str) -> bytes:
        report = load_report(self._bridge.runtime.figures(), form)
        return b"Endpoint-Load-Metrics: %b\r\n" % report.encode() if report else b""

    async def _compressed(self, answer: Answer, encoding: str) -> Answer:
        buffers = answer.buffers
        if sum([len(each) for each in buffers]) < _LONG_COMPRESS_BYTES:
            answer.buffers = (compress(buffers, encoding),)
        else:
            answer.buffers = (await self._off_loop(compress, buffers, encoding),)
        answer.fields += b"Content-Encoding: %b\r\nVary: Accept-Encoding\r\n" % encoding.encode()
        return answer

    async def _off_loop(self, act: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, act, *given)


def _wants_json(request: Request) -> bool:
    if request.outputs:
        return not all(output.binary for output in request.outputs)
    return not request.binary_default


def _is_long(request: Request, result: Result) -> bool:
    """Whether so many elements go out as JSON that the loop should not write them."""
    size = 0
    for array in result.values():
        size += array.size
    return size > _LONG_JSON_ELEMENTS and _wants_json(request)


def _timing(job: Job) -> bytes:
    """Where the job's time went, in microseconds, and how many rows its batch had."""
    return b"Inferd-Timing: queue=%.1f;gather=%.1f;run=%.1f;split=%.1f;rows=%d\r\n" % (
        (job.started_ns - job.enqueued_ns) / 1000,
        (job.gathered_ns - job.started_ns) / 1000,
        (job.ran_ns - job.gathered_ns) / 1000,
        (job.settled_ns - job.ran_ns) / 1000,
        job.batch_rows,
    )
