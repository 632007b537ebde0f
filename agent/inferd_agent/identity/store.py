"""The token file: read whole, changed under a lock, replaced by rename. Mode 0600.

Invariant: a file that is there and cannot be read is an error, never an empty list. Several processes may change the
file at once (the daemon only reads it); the lock is a file beside it, because a rename changes the inode.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from inferd_agent.config import SCOPES
from inferd_agent.errors import ConfigError
from inferd_agent.files import make_private_folder, write_atomically
from inferd_agent.identity.tokens import StoredSecret, TokenRecord, digest_of, new_id, new_token

MAX_TOKENS = 10_000
_MAX_FILE_BYTES = 32 << 20
PRIORITIES = range(10)


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    format: Annotated[int, Meta(ge=1, le=1)]
    tokens: tuple[TokenRecord, ...]


class TokenStore:
    """The tokens of one state folder."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock

    def read(self) -> tuple[TokenRecord, ...]:
        """All records; none if there is no file yet. ConfigError if the file cannot be used."""
        try:
            # Opening a pipe waits for its other end otherwise, and nothing would be read ever after.
            with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ConfigError(f"{self.path}: not a regular file; no token is accepted")
                data = file.read(_MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot read the tokens: {error.strerror}") from error
        if len(data) > _MAX_FILE_BYTES:
            raise ConfigError(f"{self.path}: larger than any token file")
        try:
            records = msgspec.json.decode(data, type=_File).tokens
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.path}: damaged ({error}); no token is accepted until it is restored from a backup, or removed"
                " and the tokens made anew"
            ) from error
        if len({record.id for record in records}) != len(records):
            raise ConfigError(f"{self.path}: damaged (an id occurs twice)")
        return records

    def create(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        models: Sequence[str] = ("*",),
        expires_s: float | None = None,
        rate_per_s: float = 0.0,
        burst: int = 0,
        priority: int = 0,
    ) -> tuple[str, TokenRecord]:
        """Make a token: the secret text, shown this once, and its record."""
        _check(name, scopes, models, rate_per_s, burst, priority)
        with self._changing() as records:
            if any(record.name == name for record in records):
                raise ConfigError(f"there is a token named {name!r} already; rotate or revoke it, or take another name")
            if len(records) >= MAX_TOKENS:
                raise ConfigError(f"{MAX_TOKENS} tokens are enough; revoke some")
            used = {record.id for record in records}
            token_id = next(fresh for fresh in iter(new_id, None) if fresh not in used)
            token = new_token(token_id)
            record = TokenRecord(
                id=token_id, name=name, scopes=tuple(dict.fromkeys(scopes)), models=tuple(models),
                created_s=self._clock(), expires_s=expires_s, rate_per_s=rate_per_s,
                burst=burst or max(1, round(rate_per_s)), priority=priority, secrets=(StoredSecret(digest_of(token)),),
            )  # fmt: skip
            records.append(record)
        return token, record

    def rotate(
        self, name_or_id: str, *, overlap_s: float = 0.0, expires_s: float | None = None
    ) -> tuple[str, TokenRecord]:
        """Give a token a new secret; the old one stays valid for the overlap. `expires_s` None keeps the expiry."""
        now_s = self._clock()
        with self._changing() as records:
            at = _index(records, name_or_id)
            old = records[at]
            token = new_token(old.id)
            until_s = now_s + overlap_s
            kept = (
                StoredSecret(secret.sha256, until_s if secret.until_s is None else min(until_s, secret.until_s))
                for secret in old.secrets
            )
            records[at] = msgspec.structs.replace(
                old,
                expires_s=old.expires_s if expires_s is None else expires_s,
                secrets=(StoredSecret(digest_of(token)), *(s for s in kept if (s.until_s or 0) > now_s)),
            )
            if records[at].is_expired(now_s):
                raise ConfigError(f"token {old.name!r} has expired; give a new expiry with the rotation")
            return token, records[at]

    def revoke(self, name_or_id: str) -> TokenRecord:
        """Remove a token with all its secrets."""
        with self._changing() as records:
            return records.pop(_index(records, name_or_id))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[TokenRecord]]:
        """Read, let the caller change, write: one process at a time. Nothing is written if the caller raises."""
        try:
            make_private_folder(self.path.parent)
            with _locked(self.path.with_name(self.path.name + ".lock")):
                records = list(self.read())
                yield records
                data = msgspec.json.format(msgspec.json.encode(_File(1, tuple(records))), indent=1)
                write_atomically(self.path, data + b"\n", mode=0o600)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be changed: {error.strerror}; nothing was changed") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _index(records: Sequence[TokenRecord], name_or_id: str) -> int:
    for at, record in enumerate(records):
        if name_or_id in (record.name, record.id):
            return at
    known = ", ".join(sorted(record.name for record in records)[:20]) or "none"
    raise ConfigError(f"there is no token {name_or_id!r}; there are: {known}")


def _check(
    name: str, scopes: Sequence[str], models: Sequence[str], rate_per_s: float, burst: int, priority: int
) -> None:
    if not name or len(name) > 64 or not name.isprintable() or name != name.strip():
        raise ConfigError(f"token name {name!r}: 1 to 64 printable characters")
    wrong = [scope for scope in scopes if scope not in SCOPES]
    if wrong or not scopes:
        raise ConfigError(f"scopes are some of {', '.join(SCOPES)}, not {', '.join(wrong) or 'none'}")
    if not models or not all(models):
        raise ConfigError("model patterns cannot be empty; '*' stands for all")
    if not 0 <= rate_per_s <= 1e9 or burst < 0:
        raise ConfigError("rate is requests per second, 0 for no limit; burst is a count")
    if priority not in PRIORITIES:
        raise ConfigError(f"priority is {PRIORITIES[0]} to {PRIORITIES[-1]}, not {priority}")
