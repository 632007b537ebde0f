"""Verifies `Authorization` headers against the token file, and follows the file while the daemon runs.

Runs on the event loop only. Hot path: one SHA-256 and one dict look-up by digest, which a caller cannot steer, so its
timing tells nothing. A changed file is noticed within a second; a damaged one closes the door until it is mended.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable

from inferd_agent.errors import ConfigError, Unauthenticated
from inferd_agent.identity.principals import Principal
from inferd_agent.identity.store import TokenStore
from inferd_agent.identity.tokens import NOBODY, TokenRecord, digest_of, token_id

log = logging.getLogger(__name__)

_REMEMBERED = 4096
_MAX_HEADER_CHARS = 256
_LOOK_EVERY_S = 1.0

Signature = tuple[int, int, int] | None


class BearerTokens:
    """The tokens that are valid now. Construction raises ConfigError if the file is damaged."""

    def __init__(self, store: TokenStore, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._records: dict[str, TokenRecord] = {}
        self._verified: dict[bytes, tuple[Principal, float]] = {}  # digest of a header -> principal, valid until
        self._is_damaged = False
        self._signature: Signature = None
        self._looked_s = -math.inf
        self.reload()

    def __len__(self) -> int:
        return len(self._records)

    def verify(self, authorization: str) -> Principal:
        """The principal of an Authorization header, or Unauthenticated with a reason that is safe to tell."""
        now_s = self._clock()
        if not 0 <= now_s - self._looked_s < _LOOK_EVERY_S:
            self._follow(now_s)
        if len(authorization) > _MAX_HEADER_CHARS:
            raise Unauthenticated("the Authorization header is too long for a token of inferd")
        key = hashlib.sha256(authorization.encode("utf-8", "surrogatepass")).digest()
        known = self._verified.get(key)
        if known is not None and now_s < known[1]:
            return known[0]
        principal, until_s = self._check(authorization, now_s)
        if len(self._verified) >= _REMEMBERED:
            self._verified.pop(next(iter(self._verified)))
        self._verified[key] = (principal, until_s)
        return principal

    def reload(self) -> None:
        """Read the file now. ConfigError if it is damaged, and then no token is accepted."""
        self._looked_s = self._clock()
        self._signature = self._sign()
        self._verified.clear()
        self._records = {}
        self._is_damaged = True
        self._records = {record.id: record for record in self._store.read()}
        self._is_damaged = False

    def _follow(self, now_s: float) -> None:
        self._looked_s = now_s
        if self._sign() == self._signature:
            return
        try:
            self.reload()
            log.info("%d tokens read from %s", len(self._records), self._store.path)
        except ConfigError as error:
            log.error("%s", error)

    def _sign(self) -> Signature:
        try:
            status = self._store.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _check(self, authorization: str, now_s: float) -> tuple[Principal, float]:
        if self._is_damaged:
            raise Unauthenticated("the daemon's token file is damaged, no token is accepted; see its log")
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("expected 'Authorization: Bearer ifd_...'")
        token = token.strip()
        public = token_id(token)
        if public is None:
            raise Unauthenticated("this is not a token of inferd (ifd_<id>_<secret>)")
        record = self._records.get(public, NOBODY)
        secret = record.matching(digest_of(token))
        if secret is None or record is NOBODY:
            raise Unauthenticated("unknown token; it may have been revoked")
        until_s = min(record.expires_s or math.inf, secret.until_s or math.inf)
        if now_s >= until_s:
            raise Unauthenticated(
                f"token {record.name!r} has expired"
                if record.is_expired(now_s)
                else f"token {record.name!r} was rotated"
            )
        return record.principal, until_s
