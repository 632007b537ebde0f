"""Verifies `Authorization` headers against the token files, and follows the files while the daemon runs.

`verify` runs on the event loop and touches no file: one SHA-256 and one dict look-up by digest, which a caller cannot
steer, so its timing tells nothing. `follow` and `reload` read the file on any one other thread and swap the whole
knowledge in one assignment. A damaged file closes the door until it is mended. Of two tokens with one id that of the
first file counts.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inferd_agent.errors import ConfigError, Unauthenticated
from inferd_agent.identity.principals import Principal
from inferd_agent.identity.store import TokenStore
from inferd_agent.identity.tokens import NOBODY, TokenRecord, digest_of, token_id

log = logging.getLogger(__name__)

_REMEMBERED = 4096
_MAX_HEADER_CHARS = 256

Signature = tuple[tuple[int, int, int] | None, ...] | None


@dataclass(frozen=True, slots=True)
class _Known:
    """What one reading of the file gave, and the headers verified against it. `records` is None if it is damaged."""

    signature: Signature
    records: Mapping[str, TokenRecord] | None
    verified: dict[bytes, tuple[Principal, float]] = field(default_factory=dict)  # digest -> principal, valid until


class BearerTokens:
    """The tokens that are valid now. Construction raises ConfigError if the file is damaged."""

    def __init__(self, *stores: TokenStore, clock: Callable[[], float] = time.time) -> None:
        self._stores = stores
        self._clock = clock
        self._known = _Known(None, None)
        self.reload()

    def __len__(self) -> int:
        return len(self._known.records or ())

    def verify(self, authorization: str) -> Principal:
        """The principal of an Authorization header, or Unauthenticated with a reason that is safe to tell."""
        now_s = self._clock()
        known = self._known
        if len(authorization) > _MAX_HEADER_CHARS:
            raise Unauthenticated("the Authorization header is too long for a token of inferd")
        key = hashlib.sha256(authorization.encode("utf-8", "surrogatepass")).digest()
        found = known.verified.get(key)
        if found is not None and now_s < found[1]:
            return found[0]
        found = _check(known.records, authorization, now_s)
        if len(known.verified) >= _REMEMBERED:
            known.verified.pop(next(iter(known.verified)))
        known.verified[key] = found
        return found[0]

    def reload(self) -> None:
        """Read the file now. ConfigError if it is damaged, and then no token is accepted."""
        signature = self._sign()
        try:
            records = {record.id: record for store in reversed(self._stores) for record in store.read()}
        except ConfigError:
            self._known = _Known(signature, None)
            raise
        self._known = _Known(signature, records)

    def follow(self) -> bool:
        """Read the file again if it has changed since; True if it had. A damaged file is logged, not raised."""
        if self._sign() == self._known.signature:
            return False
        try:
            self.reload()
            log.info("%d tokens read from %s", len(self), ", ".join(str(store.path) for store in self._stores))
        except ConfigError as error:
            log.error("%s", error)
        return True

    def _sign(self) -> Signature:
        return tuple(_sign(store.path) for store in self._stores)


def _sign(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _check(records: Mapping[str, TokenRecord] | None, authorization: str, now_s: float) -> tuple[Principal, float]:
    """The principal and until when it stands, or Unauthenticated."""
    if records is None:
        raise Unauthenticated("the daemon's token file is damaged, no token is accepted; see its log")
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("expected 'Authorization: Bearer ifd_...'")
    token = token.strip()
    public = token_id(token)
    if public is None:
        raise Unauthenticated("this is not a token of inferd (ifd_<id>_<secret>)")
    record = records.get(public, NOBODY)
    secret = record.matching(digest_of(token))
    if secret is None or record is NOBODY:
        raise Unauthenticated("unknown token; it may have been revoked")
    until_s = min((each for each in (record.expires_s, secret.until_s) if each is not None), default=math.inf)
    if now_s >= until_s:
        what = "has expired" if record.is_expired(now_s) else "was rotated, and this is its old secret"
        raise Unauthenticated(f"token {record.name!r} {what}")
    return record.principal, until_s
