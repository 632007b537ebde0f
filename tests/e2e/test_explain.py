"""What the real daemon tells of plans before anything was measured, and of where a request's time went."""

from __future__ import annotations

import json

import numpy as np

from tests.e2e.conftest import Served
from tests.e2e.daemon import Daemon


def test_a_static_plan_explains_itself(served: Served) -> None:
    """The rule's reason, why nothing was measured, and how to have it measured; as JSON too."""
    daemon: Daemon = served.daemon
    told = daemon.cli("explain", "digits", "--url", daemon.url).stdout
    assert 'not measured: planning.mode = "off"' in told.splitlines()[0]
    assert "Static rule:" in told
    assert "inferd plan digits" in told
    found = json.loads(daemon.cli("explain", "digits", "--json", "--url", daemon.url).stdout)
    assert (found["state"], found["evidence"]) == ("off", None)
    with daemon.client() as client:
        assert client.evidence("versioned", version=1)["version"] == 1
        assert 'source="static"' in client.metrics()


def test_measuring_needs_the_scope_admin(served: Served) -> None:
    """Who may read sees the plan and may not order a measuring: exit code 4, with what is missing."""
    daemon, where = served.daemon, ("--url", served.https, "--ca", str(served.daemon.ca), "--token", served.token)
    assert daemon.cli("explain", "mlp", *where).returncode == 0
    done = daemon.cli("plan", "mlp", *where)
    assert done.returncode == 4
    assert "admin" in done.stderr


def test_a_request_tells_where_its_time_went(served: Served) -> None:
    """The SDK asks, and the daemon tells the run in microseconds and the rows that ran with it."""
    with served.daemon.client() as client:
        timing = client.infer("mlp", {"x": np.ones((2, 64), np.float32)}, timing=True).timing
    assert timing["rows"] >= 2
    assert timing["run"] > 0
