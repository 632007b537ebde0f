"""Who is calling, and what that caller may do. Plain data; how it was found out is not known here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Literal


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests per second on average, and how many at once after a rest."""

    per_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. `models` are case-sensitive patterns; a greater `priority` goes first among waiting jobs."""

    name: str
    kind: Literal["peer", "token", "anonymous"]
    scopes: frozenset[str]
    models: tuple[str, ...] = ("*",)
    priority: int = 0
    rate: Rate | None = None
    _pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if "*" not in self.models:
            pattern = "|".join(translate(glob) for glob in self.models) or r"(?!)"
            object.__setattr__(self, "_pattern", re.compile(pattern))

    @property
    def owner(self) -> str:
        """What tells this caller's things from all others': a token may bear the name of a user."""
        return f"{self.kind} {self.name}"

    def has_scope(self, *scopes: str) -> bool:
        """True where the caller holds any of these scopes."""
        return not self.scopes.isdisjoint(scopes)

    def sees(self, model: str) -> bool:
        """True where a pattern of the caller's covers this model."""
        return self._pattern is None or self._pattern.match(model) is not None


ANONYMOUS = Principal("anonymous", "anonymous", frozenset(), ())
