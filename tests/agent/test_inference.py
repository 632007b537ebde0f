"""What a request means as a job, by whatever way it came."""

from __future__ import annotations

import pytest

from inferd.protocol import Request
from inferd_agent.identity import Principal
from inferd_agent.inference import job_of
from inferd_runtime import Job


def job(**asked: int) -> Job:
    """The job of a request by somebody of priority 5, with a second to spare."""
    principal = Principal("app", "token", frozenset({"infer"}), priority=5)
    return job_of(Request(**asked), principal, "m", None, arrived_ns=1000, within_ns=10**9, request_id="r")


@pytest.mark.parametrize(("asked", "priority"), [(None, 5), (0, 5), (1, 5), (2, 4), (10, -4), (2**63, -4)])
def test_a_priority_only_steps_back(asked: int | None, priority: int) -> None:
    """Nobody gets ahead of what the token grants; 1 is the most urgent, and the steps back are bounded."""
    assert (job() if asked is None else job(priority=asked)).priority == priority


def test_a_timeout_only_shortens() -> None:
    """Microseconds, within what the front end allows; 0 says nothing."""
    assert job().deadline_ns == job(timeout_us=0).deadline_ns == job(timeout_us=10**9).deadline_ns == 1000 + 10**9
    assert job(timeout_us=7).deadline_ns == 8000
