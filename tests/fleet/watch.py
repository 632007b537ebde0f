"""`inferd discover --watch --json` running on a host, and what it told so far."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.daemon import INFERD, until
from tests.fleet.network import Host


class Watcher:
    """Follows what a host hears of; the file keeps every event."""

    def __init__(self, host: Host, path: Path) -> None:
        self._path = path
        self._out = path.open("w")
        self._process = host.popen(INFERD, "discover", "--watch", "--json", stdout=self._out)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(10)
        self._out.close()

    def events(self) -> list[dict[str, Any]]:
        """Everything so far, oldest first."""
        return [json.loads(line) for line in self._path.read_text().splitlines() if line.endswith("}")]

    def devices(self) -> dict[str, dict[str, Any]]:
        """Who is there now, by name."""
        known: dict[str, dict[str, Any]] = {}
        for event in self.events():
            known.pop(event["name"], None)
            if event["event"] != "gone":
                known[event["name"]] = event
        return known

    def wait_for(self, *names: str, timeout_s: float = 90) -> dict[str, dict[str, Any]]:
        """Until exactly these are there."""
        until(lambda: sorted(self.devices()) == sorted(names), timeout_s)
        return self.devices()
