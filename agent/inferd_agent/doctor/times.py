"""Certificates and the clock: both are about what time it is, and a wrong clock makes good certificates bad."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from inferd_agent.doctor.finding import Finding, error, ok, warning
from inferd_agent.errors import ConfigError
from inferd_agent.tls.files import read_certificates

_TIME_ERROR = 5  # adjtimex(2): nobody keeps the clock
_TIMEX_BYTES = 256  # more than any struct timex
_OLDEST_CREDIBLE = datetime(2025, 1, 1, tzinfo=UTC)
_DATE = "%Y-%m-%d"


@dataclass(frozen=True, slots=True)
class Dated:
    """A certificate's life; `renewed_at` is how much life should never be left, because somebody renews it by then."""

    what: str
    path: str
    since: datetime | None = None
    until: datetime | None = None
    renewed_at: timedelta = timedelta(days=14)
    fix: str = "replace it and `systemctl reload inferd`"
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Clock:
    """What time it is, and whether somebody keeps the clock (None: the kernel does not tell)."""

    now: datetime
    is_synchronised: bool | None


def read_certificate(what: str, path: Path, *, renewed_at: timedelta, fix: str) -> Dated | None:
    """The life of the first certificate in a file; None where there is no file."""
    if not path.exists():
        return None
    try:
        leaf = read_certificates(path)[0]
    except ConfigError as failure:
        return Dated(what, str(path), problem=str(failure), fix=fix)
    return Dated(what, str(path), leaf.not_valid_before_utc, leaf.not_valid_after_utc, renewed_at, fix)


def read_clock() -> Clock:
    """The time now, and what the kernel knows of its keeping."""
    state = -1
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return Clock(datetime.now(UTC), None if state < 0 else state != _TIME_ERROR)


def check_certificates(certificates: Iterable[Dated], now: datetime) -> Iterator[Finding]:
    """Each in its time, and renewed when it should have been."""
    for each in certificates:
        name = f"the {each.what} {each.path}"
        if each.since is None or each.until is None:
            yield error("certificates", f"{name}: {each.problem}", each.fix)
        elif now < each.since:
            yield error("certificates", f"{name} is valid only from {each.since:{_DATE}}", "set this machine's clock")
        elif now >= each.until:
            yield error("certificates", f"{name} expired on {each.until:{_DATE}}", each.fix)
        elif each.until - now < each.renewed_at:
            yield warning("certificates", f"{name} expires on {each.until:{_DATE}}", each.fix)
        else:
            yield ok("certificates", f"{name} is good until {each.until:{_DATE}}")


def check_clock(clock: Clock) -> Iterator[Finding]:
    """Certificates, tokens and deadlines of other machines count on it."""
    fix = "turn on time synchronisation: timedatectl set-ntp true"
    if clock.now < _OLDEST_CREDIBLE:
        yield error("clock", f"the clock says {clock.now:{_DATE}}, before this program was written", fix)
    elif clock.is_synchronised is False:
        yield warning("clock", f"nobody keeps the clock; it says {clock.now:%Y-%m-%d %H:%M} UTC", fix)
    else:
        kept = "and is kept in time" if clock.is_synchronised else "and whether it is kept is not known here"
        yield ok("clock", f"the clock says {clock.now:%Y-%m-%d %H:%M} UTC {kept}")
