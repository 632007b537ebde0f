"""Ids of requests: the caller's own where it is fit to be told again, else one of ours."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping

from inferd_agent.rest.headers import REQUEST_ID

_MAX_CHARS = 128


class Ids:
    """Unique as long as the daemon runs."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def next(self) -> str:
        """One of ours."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def of(self, headers: Mapping[str, str]) -> str:
        """The id of the request that has these headers."""
        if REQUEST_ID not in headers:
            return self.next()
        given = headers[REQUEST_ID]
        if 0 < len(given) <= _MAX_CHARS and given.isascii() and given.isprintable():
            return given
        return self.next()
