"""kserve's own clients, REST (its protocols v2 and v1) and gRPC, at every door that they can reach."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import onnx_models
from tests.clients.conftest import IDENTITIES, Site

CALLER = Path(__file__).with_name("kserve_caller.py")
ROW = np.linspace(-1, 1, 64, dtype=np.float32)[np.newaxis]
EXPECTED = onnx_models.mlp_reference(ROW)
DATATYPES = [name for name in IDENTITIES if name != "BF16"]  # the client has none
DOORS = ("tls", "loopback", "unix", "unix-tls", "grpc-tls", "grpc-loopback", "grpc-unix", "grpc-unix-tls")


def where(site: Site, door: str) -> dict[str, str]:
    """How the client is told of a door."""
    ca = str(site.daemon.ca) if "tls" in door else ""
    kind = "grpc" if "grpc" in door else "rest"
    if "unix" in door:
        url = f"unix:{site.path(door)}" if kind == "grpc" else f"http{'s' * bool(ca)}://localhost"
        return {"kind": kind, "url": url, "socket": str(site.path(door)), "ca": ca}
    scheme = "" if kind == "grpc" else "https://" if ca else "http://"
    return {"kind": kind, "url": f"{scheme}127.0.0.1:{site.ports[door]}", "socket": "", "ca": ca}


@pytest.mark.parametrize("door", DOORS)
def test_kserves_client(kserve: Path, site: Site, door: str) -> None:
    """Health, readiness, every datatype in binary and otherwise, right numbers, and errors in our words."""
    spec = {**where(site, door), "token": site.token, "row": ROW.tolist(), "datatypes": DATATYPES}
    done = subprocess.run(
        [str(kserve), str(CALLER)], input=json.dumps(spec), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    is_grpc = spec["kind"] == "grpc"
    assert found["health"] == [True, True]
    assert found["ready"] == [True, "NOT_FOUND: there is no model 'nope'" if is_grpc else False]
    assert found["datatypes"] == {name: [True] if name == "FP16" else [True, True] for name in DATATYPES}
    for way in ("binary", "plain", "asked"):
        answer = found[way]
        version = "1" if is_grpc else None  # its REST client does not read it
        assert (answer["id"], answer["model"], answer["version"]) == ("r1", "mlp", version)
        np.testing.assert_allclose(answer["values"], EXPECTED, atol=0.02)
    unknown, narrow = found["errors"]
    assert unknown.startswith("NOT_FOUND" if is_grpc else "there is no model 'nope', '404")
    assert "x" in narrow
    assert narrow.startswith("INVALID_ARGUMENT") if is_grpc else "'400 " in narrow
    assert found["stranger"].startswith("UNAUTHENTICATED") if is_grpc else "'401 " in found["stranger"]
    if not is_grpc:
        check_v1(found["v1"])


def check_v1(found: dict[str, Any]) -> None:
    """What the older protocol gave."""
    assert found["live"] is True
    assert found["ready"][0] is True
    assert "'404 " in found["ready"][1]
    np.testing.assert_allclose(found["predictions"]["predictions"], EXPECTED, atol=0.02)
    assert "'400 " in found["error"]
