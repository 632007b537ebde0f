"""Trace and log settings as Triton's clients read and write them, and the bare address that KServe's ask."""

from __future__ import annotations

import logging

import pytest

from tests.agent.rest.serving import Serving, request

TRACE = "/v2/trace/setting"


def test_tracing_is_off(served: Serving) -> None:
    """For the server and for each model, in Triton's form."""
    found = served.get(TRACE).json()
    assert found["trace_level"] == ["OFF"]
    assert (found["trace_rate"], found["trace_mode"]) == ("1000", "triton")
    assert served.get("/v2/models/mlp/trace/setting").json() == found
    assert served.get("/v2/models/nobody/trace/setting").status == 404


def test_the_log_is_told_as_it_is(served: Serving) -> None:
    """By the level that is set."""
    found = served.get("/v2/logging").json()
    level = logging.getLogger().getEffectiveLevel()
    assert found["log_info"] is (level <= logging.INFO)
    assert (found["log_file"], found["log_format"]) == ("", "default")


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        (TRACE, {}, 200, ""),
        (TRACE, {"trace_level": ["OFF"], "trace_rate": "1000", "trace_count": None}, 200, ""),
        (TRACE, {"trace_level": ["TIMESTAMPS"]}, 501, "trace_level stays 'OFF'"),
        (TRACE, {"trace_level": "OFF", "trace_file": "/tmp/x"}, 501, "trace_file stays ''"),
        (TRACE, {"other": "x"}, 501, "there is no trace setting 'other'"),
        (TRACE, {"trace_level": 7}, 400, "trace settings"),
        (TRACE, [], 400, "trace settings"),
        ("/v2/models/nobody/trace/setting", {}, 404, "nobody"),
        ("/v2/logging", {}, 200, ""),
        ("/v2/logging", {"log_format": "default", "log_file": ""}, 200, ""),
        ("/v2/logging", {"log_verbose_level": 9}, 501, "log.level"),
        ("/v2/logging", {"other": True}, 501, "there is no log setting 'other'"),
        ("/v2/logging", {"log_info": None}, 400, "log settings"),
    ],
)
def test_what_is_so_already_may_be_said_again(served: Serving, path: str, body: object, status: int, says: str) -> None:
    """And nothing else: the refusal says where it is set."""
    reply = served.post(path, body)
    assert reply.status == status
    assert says in reply.error if status != 200 else reply.json() == served.get(path).json()


def test_somebody_is_there(served: Serving) -> None:
    """As KServe's V1 has it, for anybody."""
    assert served.get("/").json() == {"status": "alive"}
    assert served.ask(request("POST", "/")).status == 405
