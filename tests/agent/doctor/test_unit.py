"""The systemd unit, from what systemctl prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from inferd_agent.doctor.finding import Level
from inferd_agent.doctor.unit import Unit, check_unit, parse_span_s, read_unit, run

WELL = Unit(True, False, "loaded", "active", "enabled", "inferd", 0, None, "/system.slice/inferd.service", False, 1.1)
SHOWN = """LoadState=loaded
ActiveState=active
UnitFileState=enabled
User=inferd
NRestarts=2
CPUQuotaPerSecUSec=1s 500ms
ControlGroup=/system.slice/inferd.service
NeedDaemonReload=no
PrivateNetwork=yes
"""


@pytest.mark.parametrize(
    ("unit", "level", "said"),
    [
        (WELL, Level.OK, "active, exposure 1.1"),
        (Unit(False), Level.OK, "systemd does not run this machine"),
        (Unit(True, load_state="not-found"), Level.WARNING, "not installed"),
        (replace(WELL, active_state="failed"), Level.ERROR, "failed"),
        (replace(WELL, file_state="disabled"), Level.WARNING, "at boot"),
        (replace(WELL, needs_reload=True), Level.WARNING, "has not read"),
        (replace(WELL, restarts=9), Level.WARNING, "9 times"),
        (replace(WELL, exposure=4.2), Level.WARNING, "exposure is 4.2"),
    ],
)
def test_a_unit(unit: Unit, level: Level, said: str) -> None:
    """Each thing that is wrong with it is the first that is said, with what to do."""
    found = next(iter(check_unit(unit)))
    assert (found.level, said in found.text, bool(found.fix)) == (level, True, level is not Level.OK), found


def test_the_lan_needs_a_network_and_costs_some_hardening() -> None:
    """The shipped unit has no network: a LAN without the drop-in is an error, its exposure with the drop-in is none."""
    closed = replace(WELL, has_network=False)
    (found, _) = check_unit(closed, is_on_lan=True)
    assert (found.level, "lan.conf" in found.fix) == (Level.ERROR, True)
    assert [each.level for each in check_unit(closed)] == [Level.OK]
    assert [each.level for each in check_unit(replace(WELL, exposure=1.6), is_on_lan=True)] == [Level.OK]
    assert next(iter(check_unit(replace(WELL, exposure=1.6)))).level is Level.WARNING


def test_systemd_is_asked(tmp_path: Path) -> None:
    """The properties of the unit and its exposure, by two commands; a user's unit by the user's manager."""
    asked: list[str] = []

    def answer(command: Sequence[str]) -> str:
        asked.append(" ".join(command))
        exposure = "→ Overall exposure level for inferd.service: 1.1 OK 🙂\n"
        return exposure if command[0] == "systemd-analyze" else SHOWN

    assert read_unit(is_user=False, run=answer, root=tmp_path) == Unit(is_systemd=False)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    found = read_unit(is_user=False, run=answer, root=tmp_path)
    assert found == replace(WELL, restarts=2, quota_cores=1.5, has_network=False)
    assert read_unit(is_user=True, run=answer, root=tmp_path).exposure is None
    assert [line.split(",")[0] for line in asked] == [
        "systemctl show inferd.service --property=LoadState",
        "systemd-analyze security --no-pager inferd.service",
        "systemctl --user show inferd.service --property=LoadState",
    ]


def test_spans() -> None:
    """As systemd writes them."""
    assert [parse_span_s(text) for text in ("500ms", "1min 30s", "infinity", "")] == [0.5, 90.0, None, None]


def test_commands_that_are_missing_or_fail_say_nothing() -> None:
    """None, whatever the reason."""
    assert run(("/does/not/exist",)) is None
    assert run(("false",)) is None
    assert run(("echo", "yes")) == "yes\n"
