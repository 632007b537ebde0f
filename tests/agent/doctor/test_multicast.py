"""Multicast DNS: heard on a real interface, and what is said where it is not."""

from __future__ import annotations

import socket
from pathlib import Path

from inferd_agent.doctor.finding import Level
from inferd_agent.doctor.multicast import Interface, check_multicast, listen_to_ourselves, read_interfaces
from tests.e2e.raw import free_port


def test_interfaces_are_those_that_carry_multicast(tmp_path: Path) -> None:
    """Up, multicast, and not the loopback."""
    for name, flags in (("eth0", "0x1003"), ("lo", "0x1009"), ("down0", "0x1002"), ("tun0", "0x11")):
        (tmp_path / "sys/class/net" / name).mkdir(parents=True)
        (tmp_path / "sys/class/net" / name / "flags").write_text(flags + "\n")
    assert read_interfaces(tmp_path) == ("eth0",)


def test_our_own_question_comes_back() -> None:
    """The loopback carries multicast for whoever asks for it by name; what no interface is says so."""
    loopback, missing = listen_to_ourselves(["lo", "none0"], port=free_port(), heard_s=10)
    assert loopback == Interface("lo")
    assert (missing.name, bool(missing.problem)) == ("none0", True)
    assert socket.if_nametoindex("lo")


def test_silence_is_worse_where_the_daemon_is_to_be_found() -> None:
    """An error with a listener on the LAN, a warning without."""
    silent = [Interface("eth0", "what is sent does not come back")]
    assert [each.level for each in check_multicast(silent, is_wanted=True)] == [Level.ERROR]
    assert [each.level for each in check_multicast(silent, is_wanted=False)] == [Level.WARNING]
    assert [each.level for each in check_multicast([], is_wanted=True)] == [Level.ERROR]
    assert [each.level for each in check_multicast([Interface("eth0")], is_wanted=True)] == [Level.OK]
