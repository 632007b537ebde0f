"""The start-up summary: where it listens, which models are up, and a line to paste."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferd_agent.config import load, parse_listener
from inferd_agent.sockets import Bound
from inferd_agent.summary import curl, status_line, summary
from inferd_runtime import ModelDescription, Plan, Quantisation, State

CA = Path("/state/tls/ca.pem")
PLAN = Plan("openvino", "cpu", "int8", "f32", 2, 1, 16, True, 90.0, "static rule")
READY = ModelDescription("digits", 1, State.READY, plan=PLAN, quantisation=Quantisation("int8", "qdq", "per-channel"))
FAILED = ModelDescription("broken", 2, State.FAILED, reason="not an ONNX file")


def bound(url: str) -> Bound:
    return Bound(parse_listener(url), ())


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("unix:/run/i.sock", "curl --unix-socket /run/i.sock --cacert /run/i.sock.ca.pem https://localhost/v2"),
        ("unix:/run/i.sock?tls=off", "curl --unix-socket /run/i.sock http://localhost/v2"),
        ("tcp:0.0.0.0:8470", "curl --cacert /state/tls/ca.pem https://localhost:8470/v2/health/ready"),
        ("tcp:[::]:8470", "curl --cacert /state/tls/ca.pem https://localhost:8470/v2/health/ready"),
        ("tcp:10.0.0.7:80", "curl --cacert /state/tls/ca.pem https://10.0.0.7:80/v2/health/ready"),
        ("tcp:127.0.0.1:80?tls=off&insecure=on", "curl http://127.0.0.1:80/v2/health/ready"),
    ],
)
def test_the_curl_line_fits_the_listener(url: str, line: str) -> None:
    """Trust where there is TLS, an address that can be called, and a path that needs no token over TCP."""
    assert curl(bound(url), CA) == line


def test_the_summary_names_models_and_why_they_fail(tmp_path: Path) -> None:
    """State, engine and INT8 of each, the reason where there is one."""
    text = summary(load(flags={"state.dir": str(tmp_path)}), (bound("unix:/run/i.sock"),), (READY, FAILED), CA)
    assert "listening  unix:/run/i.sock" in text
    assert "digits 1: ready on openvino cpu, int8 qdq per-channel" in text
    assert "broken 2: failed: not an ONNX file" in text
    assert status_line((READY, FAILED, READY)) == "models: 2 ready, 1 failed"


def test_the_line_to_paste_is_for_a_listener_of_http(tmp_path: Path) -> None:
    """Not for the first listener, whatever it speaks."""
    others = (bound("memory+unix:/run/m"), bound("grpc+unix:/run/g"))
    loaded = load(flags={"state.dir": str(tmp_path)})
    assert "listening  memory+unix:/run/m" in (text := summary(loaded, others, (), CA))
    assert "try " not in text
    assert "--unix-socket /run/i.sock" in summary(loaded, (*others, bound("unix:/run/i.sock")), (), CA)


def test_on_the_lan_the_summary_tells_what_to_compare(tmp_path: Path) -> None:
    """The fingerprint for `inferd trust`, and nothing of it without a LAN."""
    loaded = load(flags={"state.dir": str(tmp_path)})
    text = summary(loaded, (bound("tcp:[::]:8470"),), (), CA, fingerprint="ab" * 32)
    assert f"lan        found by `inferd discover`, fingerprint {'ab' * 32}" in text
    assert "fingerprint" not in summary(loaded, (bound("tcp:[::]:8470"),), (), CA)


def test_an_empty_folder_says_where_models_go(tmp_path: Path) -> None:
    """A daemon without models is no riddle."""
    loaded = load(flags={"state.dir": str(tmp_path), "models.path": [str(tmp_path / "m")]})
    assert f"{tmp_path}/m/<name>.onnx" in summary(loaded, (bound("unix:/run/i.sock"),), (), CA)
    assert status_line(()) == "models: none"
