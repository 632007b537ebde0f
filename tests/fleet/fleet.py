"""Devices on a network of namespaces: each a real daemon that announces itself, all of one CA and one token."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from inferd import Client
from inferd.fleet.trust import Authority, Trusted
from inferd_agent.identity import TokenStore
from inferd_agent.tls import HostNames, TlsMaterial
from tests.e2e.daemon import Daemon
from tests.fleet.network import Network

CALLER = "caller"
# One core each, whatever the others do: the daemons share a machine that, as devices, they would not.
SETTINGS = {"INFERD_RUNTIME_GOVERNOR": "fixed", "INFERD_RUNTIME_CORES": "1"}


class Fleet:
    """`with Fleet(folder, "d1", "d2", models=...) as fleet:` every device runs; one more host is for callers.

    `models(name, folder)` lays the models of a device. `trust` is the callers' trust file.
    """

    def __init__(self, folder: Path, *names: str, models: Callable[[str, Path], object]) -> None:
        self._folder = folder
        self.names = names
        self.lan = Network(*names, CALLER)
        self.trust = folder / "trust.json"
        self.token = ""
        self.daemons: dict[str, Daemon] = {}
        self._models = models

    def __getitem__(self, name: str) -> Daemon:
        return self.daemons[name]

    def __enter__(self) -> Self:
        self.lan.__enter__()
        try:
            authority = self._make_authority()
            self.token, _ = TokenStore(self._folder / "tokens.json").create("app", ("infer", "read"))
            for name in self.names:
                self.daemons[name] = self._make(name, authority)
                self.daemons[name].start(wait=False)
            for daemon in self.daemons.values():
                daemon.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the daemons, then the network."""
        for daemon in self.daemons.values():
            if daemon.process is not None:
                daemon.kill()
        self.lan.close()

    def call(self, name: str, work: Callable[[Client], Any]) -> Any:
        """What a client of one device says, over its Unix socket, which no network stands between."""
        with self.daemons[name].client() as client:
            return work(client)

    def answered(self, model: str, *names: str) -> dict[str, int]:
        """Inferences that these devices, or all, have answered since they started."""

        def count(client: Client) -> int:
            return int(client.stats(model)["model_stats"][0]["inference_stats"]["success"]["count"])

        return {name: int(self.call(name, count)) for name in names or self.names}

    def _make_authority(self) -> Path:
        """One CA for all devices, and the trust in it."""
        tls = TlsMaterial(self._folder / "authority", host=lambda: HostNames.of(["ca.local"], []))
        authority = Authority(fingerprint=tls.fingerprints["ca"], certificate=tls.ca_path.read_text())
        self.trust.write_bytes(msgspec.json.encode(Trusted(authorities=(authority,))))
        return self._folder / "authority"

    def _make(self, name: str, authority: Path) -> Daemon:
        daemon = self.lan[name].daemon(self._folder / name, args=("--lan",), env=SETTINGS)
        (daemon.state / "tls").mkdir(parents=True, mode=0o700)
        for file in ("ca.pem", "ca.key"):
            shutil.copy(authority / file, daemon.state / "tls")
        shutil.copy(self._folder / "tokens.json", daemon.state)
        self._models(name, daemon.models)
        return daemon
