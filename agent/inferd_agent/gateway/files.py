"""The folder that Envoy follows: each file written whole, only when it changes, in an order that is safe at any moment.

Whom to trust comes before whom to call: an endpoint that came first would meet a context that accepts nobody.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable
from pathlib import Path

import msgspec

from inferd_agent.errors import ConfigError
from inferd_agent.files import make_private_folder, write_atomically
from inferd_agent.gateway import bootstrap
from inferd_agent.gateway.bootstrap import Json
from inferd_agent.gateway.settings import Settings
from inferd_agent.gateway.upstream import Member


class Files:
    """One gateway's folder; ConfigError where it cannot be used, or another gateway uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: dict[str, bytes] = {}
        try:
            make_private_folder(folder)
            self._lock = (folder / "lock").open("a")  # held as long as this gateway lives
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ConfigError(f"{folder}: another gateway uses it; give this one its own with --folder") from None

    @property
    def bootstrap(self) -> Path:
        """What Envoy is started with."""
        return self.folder / bootstrap.BOOTSTRAP

    def prepare(self, settings: Settings) -> None:
        """What stays the same while a gateway runs."""
        self._write(bootstrap.BOOTSTRAP, bootstrap.following(settings, self.folder))
        if settings.listen.tls:
            self._write(bootstrap.CERTIFICATE, bootstrap.certificate(settings))

    def update(self, members: Iterable[Member]) -> bool:
        """The devices of now; True if anything is new. OSError leaves what was there."""
        found = tuple(members)
        is_new_trust = self._write(bootstrap.CLUSTERS, bootstrap.clusters(found, self.folder))
        return self._write(bootstrap.ENDPOINTS, bootstrap.endpoints(found)) or is_new_trust

    def close(self) -> None:
        """Let go of the folder; what was written stays."""
        self._lock.close()

    def _write(self, name: str, content: Json) -> bool:
        data = msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
        if self._written.get(name) == data:
            return False
        write_atomically(self.folder / name, data, mode=0o600)
        self._written[name] = data
        return True
