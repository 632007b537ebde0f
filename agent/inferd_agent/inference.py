"""What every front end does with a request once it is decoded: a job with its deadline, what classification needs, and
copying into and out of shared memory.

Knows the protocol's words and the runtime's, and neither HTTP nor gRPC, so that a request means the same by every way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from inferd.protocol import Request
from inferd_agent.bridge import Bridge, Result
from inferd_agent.identity import Principal
from inferd_agent.memory import Use
from inferd_runtime import InvalidRequest, Job

_VERSION_DIGITS = 18
_MOST_LATER = 9
_LONG_COPY_BYTES = 256 << 10


def job_of(
    request: Request,
    principal: Principal,
    model: str,
    version: int | None,
    *,
    arrived_ns: int,
    within_ns: int,
    request_id: str,
) -> Job:
    """The job that a request is. `within_ns` is what the front end allows; the request itself may allow less, and
    with a `priority` beyond 1, the most urgent, it steps back behind others of its principal's level."""
    if request.timeout_us:
        within_ns = min(within_ns, request.timeout_us * 1000)
    later = min(request.priority - 1, _MOST_LATER) if request.priority else 0
    return Job(
        model,
        request.inputs,
        version=version,
        outputs=tuple([output.name for output in request.outputs]) if request.outputs else (),
        deadline_ns=arrived_ns + within_ns,
        priority=principal.priority - later,
        principal=principal.name,
        request_id=request_id,
    )


async def infer_in_regions(use: Use, make_job: Callable[[], Job], bridge: Bridge, pool: Executor) -> tuple[Job, Result]:
    """Read the inputs that lie in regions, run the job that is made then, write the outputs that are wanted in regions.

    Long copies leave the loop. The regions are let go in any case.
    """
    with use:
        await _copy(pool, use.copied_bytes, use.read)
        job = make_job()
        result = await bridge.infer(job)
        await _copy(pool, use.room_bytes, use.write, result)
    return job, result


async def _copy(pool: Executor, nbytes: int, act: Callable[..., None], *given: Any) -> None:
    if nbytes < _LONG_COPY_BYTES:
        act(*given)
    else:
        await asyncio.get_running_loop().run_in_executor(pool, act, *given)


def labels_of(bridge: Bridge, job: Job) -> tuple[Mapping[str, Sequence[str]], bool]:
    """The labels of each output's classes, and whether the model's first dimension is its rows."""
    description = bridge.runtime.describe(job.model, job.version)
    return description.labels, description.spec is None or description.spec.max_batch > 0


def read_version(text: str) -> int:
    """A model version as callers write it. Raises InvalidRequest."""
    if not (text.isascii() and text.isdigit() and len(text) <= _VERSION_DIGITS):
        raise InvalidRequest(f"a version is a plain decimal number, got {text[:40]!r}")
    return int(text)
