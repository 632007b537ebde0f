"""From a path to an endpoint: exact words, one segment a name, no patterns at run time.

Names are percent-decoded, versions are plain decimal. Query strings are ignored. What a path leads to is remembered,
within bounds, because callers ask for the same few paths again and again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from inferd_agent.errors import NoSuchPath
from inferd_agent.inference import read_version
from inferd_agent.rest.answers import Answer, Spell, plain_error
from inferd_runtime import InvalidRequest

if TYPE_CHECKING:
    from inferd_agent.rest.call import Call

Handler = Callable[["Call", "Target"], Awaitable[Answer]]

_REMEMBERED = 1024
_REMEMBERED_CHARS = 256


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One kind of path. `scopes` any of which is needed: None is open to all, () to any known caller. `other` answers
    a second method on the same path. `spell` writes the bodies of its refusals."""

    label: str
    method: str
    handler: Handler
    scopes: tuple[str, ...] | None
    other: Endpoint | None = None
    spell: Spell = plain_error

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that have a meaning here."""
        return (self.method, self.other.method) if self.other else (self.method,)

    @property
    def allow(self) -> str:
        """The Allow header."""
        return ", ".join(self.methods).replace("GET", "GET, HEAD") + ", OPTIONS"


@dataclass(frozen=True, slots=True)
class Target:
    """Where one path leads: the endpoint, and the model and version, or the region, that the path names."""

    endpoint: Endpoint
    model: str = ""
    version: int | None = None
    region: str = ""


class Routes:
    """The table. Words are written as in the protocol; `{m}` is a model, `{n}` a version, `{g}` a region, `{r}` any
    name. What follows one in its segment (`{m}:predict`) has to end the segment that came."""

    def __init__(self, table: Mapping[str, Endpoint]) -> None:
        self._exact: dict[str, Endpoint] = {}
        self._shapes: dict[tuple[str, ...], Endpoint] = {}
        for path, endpoint in table.items():
            if "{" in path:
                self._shapes[tuple(path.split("/")[1:])] = endpoint
            else:
                self._exact[path] = endpoint
        self._remembered: dict[str, Target] = {}

    def find(self, raw: str) -> Target:
        """The target of a request's path as it came. Raises NoSuchPath, InvalidRequest."""
        target = self._remembered.get(raw)
        if target is not None:
            return target
        target = self._match(raw.partition("?")[0].partition("#")[0])
        if len(raw) <= _REMEMBERED_CHARS:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[raw] = target
        return target

    def recall(self, raw: str) -> Target | None:
        """The target of a path that was found before, None for others."""
        return self._remembered.get(raw)

    def _match(self, path: str) -> Target:
        endpoint = self._exact.get(path)
        if endpoint is not None:
            return Target(endpoint)
        segments = path.split("/")[1:]
        for shape, endpoint in self._shapes.items():
            if len(shape) == len(segments) and _fits(shape, segments):
                named = {
                    want[:3]: came[: len(came) - len(want[3:])] for want, came in zip(shape, segments, strict=True)
                }
                model = _decode(named["{m}"]) if "{m}" in named else ""
                version = read_version(named["{n}"]) if "{n}" in named else None
                region = _decode(named["{g}"]) if "{g}" in named else ""
                return Target(endpoint, model, version, region)
        raise NoSuchPath(f"there is no {path[:200]!r} here")


def _fits(shape: tuple[str, ...], segments: list[str]) -> bool:
    return all(_takes(want, came) for want, came in zip(shape, segments, strict=True))


def _takes(want: str, came: str) -> bool:
    if not want.startswith("{"):
        return want == came
    if not came.endswith(want[3:]):
        return False
    name = came[: len(came) - len(want[3:])]
    # No model or version has a colon: what follows one is a verb that is not there, as TensorFlow Serving's :classify.
    return bool(name) and not (":" in name and want.startswith(("{m}", "{n}")))


def _decode(segment: str) -> str:
    try:
        name = unquote_to_bytes(segment).decode()
    except UnicodeError:
        raise InvalidRequest("the path is not UTF-8") from None
    if not name.isprintable():
        raise InvalidRequest("the path holds characters that no name has")
    return name
