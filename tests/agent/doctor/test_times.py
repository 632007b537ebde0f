"""Certificates in their time, and the clock that they are judged by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from inferd_agent.doctor.finding import Level
from inferd_agent.doctor.times import (
    Clock,
    Dated,
    check_certificates,
    check_clock,
    read_certificate,
    read_clock,
)
from inferd_agent.tls import HostNames, TlsMaterial

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("since", "until", "level", "said"),
    [
        (NOW - DAY, NOW + 90 * DAY, Level.OK, "good until 2026-08-30"),
        (NOW - 80 * DAY, NOW + 13 * DAY, Level.WARNING, "expires on 2026-06-14"),
        (NOW - 80 * DAY, NOW, Level.ERROR, "expired on 2026-06-01"),
        (NOW + DAY, NOW + 90 * DAY, Level.ERROR, "valid only from 2026-06-02"),
    ],
)
def test_certificates(since: datetime, until: datetime, level: Level, said: str) -> None:
    """In time, soon over, over, and not yet: each is said with its date."""
    (found,) = check_certificates([Dated("certificate", "/c.pem", since, until)], NOW)
    assert (found.level, said in found.text) == (level, True), found


def test_a_certificate_is_read_as_it_lies(tmp_path: Path) -> None:
    """One that is missing is nothing, a damaged one is an error that names the file."""
    TlsMaterial(tmp_path, host=lambda: HostNames.of(["box.local"], []), clock=lambda: NOW)
    life = timedelta(days=14)
    found = read_certificate("certificate", tmp_path / "cert.pem", renewed_at=life, fix="f")
    assert found is not None
    assert found.until == NOW + 90 * DAY
    assert read_certificate("certificate", tmp_path / "none.pem", renewed_at=life, fix="f") is None
    (tmp_path / "cert.pem").write_text("nonsense")
    damaged = read_certificate("certificate", tmp_path / "cert.pem", renewed_at=life, fix="f")
    assert damaged is not None
    (finding,) = check_certificates([damaged], NOW)
    assert (finding.level, str(tmp_path / "cert.pem") in finding.text) == (Level.ERROR, True)


@pytest.mark.parametrize(
    ("clock", "level"),
    [
        (Clock(NOW, True), Level.OK),
        (Clock(NOW, None), Level.OK),
        (Clock(NOW, False), Level.WARNING),
        (Clock(datetime(1970, 1, 1, tzinfo=UTC), True), Level.ERROR),
    ],
)
def test_the_clock(clock: Clock, level: Level) -> None:
    """A clock that nobody keeps is a warning, one before this program was written an error."""
    (found,) = check_clock(clock)
    assert found.level is level


def test_this_machines_clock_is_read() -> None:
    """The kernel's own word, or that it has none."""
    assert read_clock().is_synchronised in (True, False, None)
