"""What every front end does with a request once it is decoded: a job with its deadline, and what classification needs.

Knows the protocol's words and the runtime's, and neither HTTP nor gRPC, so that a request means the same by every way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inferd.protocol import Request
from inferd_agent.bridge import Bridge
from inferd_agent.identity import Principal
from inferd_runtime import InvalidRequest, Job, Unsupported

_VERSION_DIGITS = 18
_MOST_LATER = 9


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
    if request.references or any(output.place for output in request.outputs):
        raise Unsupported("shared memory is not served here: send tensors in the request")
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


def labels_of(bridge: Bridge, job: Job) -> tuple[Mapping[str, Sequence[str]], bool]:
    """The labels of each output's classes, and whether the model's first dimension is its rows."""
    description = bridge.runtime.describe(job.model, job.version)
    return description.labels, description.spec is None or description.spec.max_batch > 0


def read_version(text: str) -> int:
    """A model version as callers write it. Raises InvalidRequest."""
    if not (text.isascii() and text.isdigit() and len(text) <= _VERSION_DIGITS):
        raise InvalidRequest(f"a version is a plain decimal number, got {text[:40]!r}")
    return int(text)
