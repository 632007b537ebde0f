"""What the gateway lets through, and what it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest

from inferd_agent.gateway.front import listener
from inferd_agent.gateway.settings import read_settings

PLAIN = "tcp:127.0.0.1:8471?tls=off&insecure=on"


def manager(timeout_s: float = 60) -> dict[str, Any]:
    settings = read_settings(PLAIN, timeout_s=timeout_s, patience_s=2)
    found: dict[str, Any] = listener(settings, None)["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def route(method: str, path: str) -> dict[str, Any]:
    """The first route that matches, as Envoy chooses."""
    for each in manager()["route_config"]["virtual_hosts"][0]["routes"]:
        match = each["match"]
        if match.get("headers", [{"string_match": {"exact": method}}])[0]["string_match"]["exact"] != method:
            continue
        pattern = match.get("safe_regex", {}).get("regex")
        if match.get("path") == path or match.get("prefix") or (pattern and re.fullmatch(pattern, path)):
            found: dict[str, Any] = each
            return found
    raise AssertionError("no route")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/models/digits/infer"),
        ("POST", "/v2/models/a%20b/versions/3/infer"),
        ("GET", "/v2/models/digits"),
        ("GET", "/v2/models/digits/versions/3/ready"),
        ("GET", "/v2/models/digits/config"),
        ("GET", "/v2/health/ready"),
        ("GET", "/v2"),
    ],
)
def test_what_any_device_can_answer_is_passed_on(method: str, path: str) -> None:
    """With a deadline, and repeated elsewhere when a device does not answer."""
    onward = route(method, path)["route"]
    assert (onward["cluster"], onward["timeout"]) == ("devices", "60s")
    assert "reset" in onward["retry_policy"]["retry_on"]
    assert (onward["retry_policy"]["per_try_timeout"], onward["hedge_policy"]["hedge_on_per_try_timeout"]) == (
        "2s",
        True,
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/models/digits/load"),
        ("POST", "/v2/repository/models/digits/unload"),
        ("POST", "/v2/repository/index"),
        ("GET", "/v2/models/digits/stats"),
        ("GET", "/v2/models/stats/infer"),
        ("POST", "/inferd/v1/models/digits/plan"),
        ("GET", "/metrics"),
        ("GET", "/v2/models/a/b/infer"),
        ("PUT", "/v2/models/digits/infer"),
        ("GET", "/"),
    ],
)
def test_what_is_about_one_device_is_refused(method: str, path: str) -> None:
    """404 by the gateway itself: nothing reaches a device by chance."""
    assert route(method, path)["direct_response"]["status"] == 404


def test_the_gateway_lives_by_itself() -> None:
    """Liveness is about the gateway; readiness about the fleet."""
    assert route("GET", "/v2/health/live")["direct_response"]["status"] == 200


def test_no_stream_outlives_its_deadline() -> None:
    """Idle streams end soon after the longest call."""
    assert manager(10)["stream_idle_timeout"] == "15s"


@pytest.mark.parametrize(
    ("path", "model"),
    [("/v2/models/digits/infer", "digits"), ("/v2/models/a%20b?x=1", "a%20b"), ("/v2/models/m", "m")],
)
def test_the_model_is_read_from_the_path(path: str, model: str) -> None:
    """What the balancer looks for."""
    rewrite = manager()["http_filters"][0]["typed_config"]["request_rules"][0]["on_header_present"][
        "regex_value_rewrite"
    ]
    assert re.sub(rewrite["pattern"]["regex"], rewrite["substitution"], path) == model
