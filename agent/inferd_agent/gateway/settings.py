"""What is chosen at the command line, checked together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inferd_agent.config import Listener, parse_listener
from inferd_agent.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Settings:
    """What the administrator chose.

    `timeout_s`: the longest that a call may take. `patience_s`: so long without an answer, and another device is asked
    as well. `cert` and `key` are absolute paths (PEM), empty without TLS.
    """

    listen: Listener
    timeout_s: float
    patience_s: float
    cert: str = ""
    key: str = ""


def read_settings(
    listen: str, *, timeout_s: float = 60.0, patience_s: float = 5.0, cert: str = "", key: str = ""
) -> Settings:
    """Check what was given together; raises ConfigError."""
    listener = parse_listener(listen)
    if not listener.is_rest:
        raise ConfigError(f"listener {listen!r}: the gateway balances REST; write unix:PATH or tcp:HOST:PORT")
    if listener.kind == "unix" and listener.tls:
        raise ConfigError(f"listener {listen!r}: Envoy speaks no TLS on Unix sockets here; write {listen}?tls=off")
    if listener.tls and not (cert and key):
        raise ConfigError(
            f"listener {listen!r}: TLS needs --cert and --key; without TLS write tcp:127.0.0.1:PORT?tls=off&insecure=on"
        )
    if not listener.tls and (cert or key):
        raise ConfigError(f"listener {listen!r} has tls=off, so --cert and --key have no effect; drop one or the other")
    paths = (str(Path(path).absolute()) if path else "" for path in (cert, key))
    return Settings(listener, timeout_s, patience_s, *paths)
