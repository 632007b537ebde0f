"""A real avahi on a host of the network, with a message bus of its own; both end with the network at the latest."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.daemon import until
from tests.fleet.network import Host

TOOLS = ("avahi-daemon", "avahi-browse", "dbus-daemon")
MISSING = ", ".join(tool for tool in TOOLS if not shutil.which(tool))

_BUS = """<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/> <allow eavesdrop="true"/> <allow own="*"/>
  </policy>
</busconfig>
"""
_CONFIGURATION = "[server]\nuse-ipv4=yes\nuse-ipv6=yes\n"
# avahi has one place for its own socket; a mount of its own keeps the hosts apart.
_PRIVATE = 'mkdir -p /run/avahi-daemon && mount -t tmpfs none /run/avahi-daemon && exec "$@"'


class Avahi:
    """What avahi on a host sees."""

    def __init__(self, host: Host, env: dict[str, str]) -> None:
        self._host = host
        self._env = env

    def browse(self, service: str) -> list[list[str]]:
        """The resolved instances of a service, as `avahi-browse --parsable` has their fields; empty before it is up."""
        done = self._host.run(
            "avahi-browse", "--resolve", "--parsable", "--terminate", service, env=self._env, check=False
        )  # fmt: skip
        return [line.split(";") for line in done.stdout.splitlines() if line.startswith("=")]


@contextlib.contextmanager
def running(host: Host, folder: Path) -> Iterator[Avahi]:
    """Start a bus and avahi on a host, wait until they answer, end them."""
    folder.mkdir(parents=True, exist_ok=True)
    socket = folder / "bus"
    (folder / "bus.conf").write_text(_BUS.format(socket=socket))
    (folder / "avahi.conf").write_text(_CONFIGURATION)
    env = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={socket}"}
    with (folder / "log").open("w") as log, contextlib.ExitStack() as stack:

        def start(*args: str) -> None:
            process = host.popen(*args, env=env, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(process.wait, 10)
            stack.callback(process.kill)

        start("dbus-daemon", "--nofork", "--nopidfile", f"--config-file={folder / 'bus.conf'}")
        until(socket.exists)
        start(
            "unshare", "--mount", "sh", "-c", _PRIVATE, "sh",
            "avahi-daemon", "--no-drop-root", "--no-chroot", "--no-rlimits", "-f", str(folder / "avahi.conf"),
        )  # fmt: skip
        until(lambda: "Server startup complete" in (folder / "log").read_text())
        yield Avahi(host, env)
