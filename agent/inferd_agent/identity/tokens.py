"""What a token is: `ifd_<id>_<secret>`, its stored record, and how people write its times.

Secrets are 256 random bits and leave this room once, when they are made; only SHA-256 digests are stored. A fast hash
is right here because there is no guessing at 256 bits.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import UTC, date, datetime

from msgspec import Struct

from inferd_agent.errors import ConfigError
from inferd_agent.identity.principals import Principal, Rate

_TOKEN = re.compile(r"^ifd_([a-z0-9]{8})_([a-z0-9]{64})$")
_DURATION = re.compile(r"^([0-9]{1,9})\s*([smhdw])$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_NOBODYS_DIGEST = "0" * 64
LATEST_S = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


class StoredSecret(Struct, frozen=True, forbid_unknown_fields=True):
    """The digest of one secret; `until_s` (Unix time) is set once a rotation has replaced it."""

    sha256: str
    until_s: float | None = None


class TokenRecord(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One token as stored. Times are Unix seconds; `rate_per_s` 0 means no limit."""

    id: str
    name: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] = ("*",)
    created_s: float
    expires_s: float | None = None
    rate_per_s: float = 0.0
    burst: int = 1
    priority: int = 0
    secrets: tuple[StoredSecret, ...]

    def is_expired(self, now_s: float) -> bool:
        return self.expires_s is not None and now_s >= self.expires_s

    def matching(self, digest: str) -> StoredSecret | None:
        """The stored secret with this digest; every one is compared, each in constant time."""
        found = None
        for secret in self.secrets:
            if hmac.compare_digest(secret.sha256, digest):
                found = secret
        return found

    @property
    def principal(self) -> Principal:
        rate = Rate(self.rate_per_s, self.burst) if self.rate_per_s > 0 else None
        return Principal(self.name, "token", frozenset(self.scopes), self.models, self.priority, rate)


NOBODY = TokenRecord(id="", name="", scopes=(), created_s=0.0, secrets=(StoredSecret(_NOBODYS_DIGEST),))


def new_id() -> str:
    """A fresh public part."""
    return secrets.token_hex(4)


def new_token(token_id: str) -> str:
    """A fresh token for this id; the only time its secret is seen."""
    return f"ifd_{token_id}_{secrets.token_hex(32)}"


def token_id(token: str) -> str | None:
    """The public part, None if this is not a token at all."""
    match = _TOKEN.match(token)
    return match[1] if match else None


def digest_of(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def parse_duration_s(text: str) -> float:
    """`90s`, `90m`, `12h`, `30d` or `2w` in seconds."""
    match = _DURATION.match(text.strip()) if text.isascii() else None
    if not match:
        raise ConfigError(f"{text!r} is not a duration; write a number and s, m, h, d or w, e.g. 12h or 30d")
    return float(int(match[1]) * _SECONDS[match[2]])


def parse_expiry_s(text: str, now_s: float) -> float:
    """A duration from now, an ISO date (its end, UTC) or an ISO time as Unix seconds; it must lie in the future."""
    try:
        expires_s = now_s + parse_duration_s(text)
    except ConfigError:
        expires_s = _iso_s(text.strip())
    if not now_s < expires_s < LATEST_S:
        raise ConfigError(f"expiry {text!r} does not lie in the future (before the year 9999)")
    return expires_s


def _iso_s(text: str) -> float:
    try:
        if len(text) == 10:
            return datetime.combine(date.fromisoformat(text), datetime.max.time(), UTC).timestamp()
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ConfigError(
            f"expiry {text!r}: write a duration such as 30d, 12h or 90m, or a date such as 2031-01-31"
        ) from None
