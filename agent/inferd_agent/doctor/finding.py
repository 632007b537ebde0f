"""What a check says: that all is well, or what is wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is: a warning costs something or will, an error means that something does not work."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one thing; `fix` is empty only where nothing is wrong."""

    check: str
    level: Level
    text: str
    fix: str = ""


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, fix: str) -> Finding:
    """It works, for now or badly."""
    return Finding(check, Level.WARNING, text, fix)


def error(check: str, text: str, fix: str) -> Finding:
    """It does not work, or must not go on like this."""
    return Finding(check, Level.ERROR, text, fix)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 all well, 1 at least a warning, 2 at least an error."""
    severity = (Level.OK, Level.WARNING, Level.ERROR)
    return max((severity.index(finding.level) for finding in findings), default=0)
