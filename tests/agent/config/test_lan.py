"""`[lan]`: a listener for the LAN appears only when asked for, and never beside one that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferd_agent.config import Loaded, is_lan_listener, load
from inferd_agent.errors import ConfigError


def loaded(tmp_path: Path, **flags: object) -> Loaded:
    """The configuration with these keys, a dot written as two underscores."""
    dotted = {key.replace("__", "."): value for key, value in flags.items()}
    return load(env={}, flags={"state.dir": str(tmp_path), **dotted}, uid=1000, home=tmp_path)


def test_nothing_listens_on_the_lan_by_default(tmp_path: Path) -> None:
    """Closed until asked."""
    assert not any(map(is_lan_listener, loaded(tmp_path).listeners))


def test_lan_listens_on_all_addresses_with_tls(tmp_path: Path) -> None:
    """Beside the Unix socket, on the port that is configured."""
    unix, lan = loaded(tmp_path, lan__enabled=True, lan__port=9000).listeners
    assert unix.kind == "unix"
    assert lan.host in ("::", "0.0.0.0")
    assert (lan.port, lan.tls, lan.insecure) == (9000, True, False)


def test_a_listener_that_is_there_is_taken(tmp_path: Path) -> None:
    """One on loopback does not count, one for the LAN does."""
    here, there = "tcp:127.0.0.1:1?tls=off&insecure=on", "tcp:10.0.0.7:8471"
    assert len(loaded(tmp_path, lan__enabled=True, server__listen=(here,)).listeners) == 2
    assert [each.url for each in loaded(tmp_path, lan__enabled=True, server__listen=(there,)).listeners] == [there]


def test_a_port_is_a_port(tmp_path: Path) -> None:
    """Checked as every other value is."""
    with pytest.raises(ConfigError, match=r"lan\.port"):
        loaded(tmp_path, lan__port=70000)
