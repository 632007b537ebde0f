"""Envoy itself accepts what is written, and settings that contradict each other are refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from inferd_agent.errors import ConfigError
from inferd_agent.gateway.bootstrap import whole
from inferd_agent.gateway.envoy import find_envoy
from inferd_agent.gateway.files import Files
from inferd_agent.gateway.settings import read_settings
from inferd_agent.tls import HostNames, TlsMaterial
from tests.agent.gateway.devices import member

PLAIN = "tcp:127.0.0.1:8471?tls=off&insecure=on"


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    TlsMaterial(tmp_path / "tls", host=lambda: HostNames.of(["gateway.local"], []))
    return tmp_path / "tls"


def validate(path: Path) -> None:
    command = [str(find_envoy()), "--mode", "validate", "--log-level", "error", "-c", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("listen", [PLAIN, "unix:/run/gateway.sock?tls=off", "tcp:0.0.0.0:8471", "tcp:[::]:8471"])
def test_envoy_accepts_it(listen: str, tls: Path, tmp_path: Path) -> None:
    """The bootstrap that follows files, and everything in one piece, for every kind of listener."""
    pair = ("", "") if "off" in listen else (str(tls / "cert.pem"), str(tls / "key.pem"))
    settings = read_settings(listen, timeout_s=2.5, patience_s=0.1, cert=pair[0], key=pair[1])
    anchors = (tls / "ca.pem").read_text()
    members = [member("a", anchors=anchors, models=("m",)), member("b", anchors=anchors, addresses=("2001:db8::1",))]
    (tmp_path / "whole.json").write_text(json.dumps(whole(settings, members)))
    validate(tmp_path / "whole.json")
    files = Files(tmp_path)
    files.prepare(settings)
    files.update(members)
    files.close()
    validate(files.bootstrap)


@pytest.mark.parametrize(
    ("listen", "cert", "said"),
    [
        ("tcp:0.0.0.0:8471?tls=off&insecure=on", "", "not a loopback"),
        ("tcp:0.0.0.0:8471", "", "needs --cert and --key"),
        ("unix:/run/x.sock", "", "unix:/run/x.sock?tls=off"),
        (PLAIN, "c.pem", "no effect"),
    ],
)
def test_contradictions_are_refused(listen: str, cert: str, said: str) -> None:
    """Plain text stays on loopback, TLS has a certificate, no option is without effect."""
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        read_settings(listen, cert=cert, key=cert)
