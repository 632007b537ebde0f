"""systemd's notify and socket-activation protocols (sd_notify(3), sd_listen_fds(3)). Outside systemd: no effect."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping

_FIRST_FD = 3
_MOST_FDS = 64


class Notifier:
    """Tells the service manager how we are; a manager that does not listen harms nobody."""

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        *,
        pid: int | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        env = os.environ if env is None else env
        address = env.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._monotonic_ns = monotonic_ns
        self.watchdog_s = _watchdog_s(env, os.getpid() if pid is None else pid)

    @property
    def is_active(self) -> bool:
        """True under a manager that wants to hear from us."""
        return bool(self._address)

    def ready(self, status: str = "") -> None:
        """Started, or done with a reload."""
        self._send("READY=1", status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("", text)

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={self._monotonic_ns() // 1000}")

    def stopping(self, status: str = "", *, within_s: float = 0.0) -> None:
        """The stop begins; with `within_s` it may take so long, whatever the unit's TimeoutStopSec says."""
        extension = f"\nEXTEND_TIMEOUT_USEC={round(within_s * 1e6)}" if within_s else ""
        self._send(f"STOPPING=1{extension}", status)

    def watchdog(self) -> None:
        """Still alive; to be said at least every `watchdog_s`, better twice as often."""
        self._send("WATCHDOG=1")

    def _send(self, state: str, status: str = "") -> None:
        if not self._address:
            return
        lines = [state] if state else []
        if status:
            lines.append("STATUS=" + status.replace("\n", " "))
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)  # a full queue must not stop the event loop
            sock.sendto("\n".join(lines).encode(), self._address)


def take_sockets(env: MutableMapping[str, str] | None = None, *, pid: int | None = None) -> tuple[socket.socket, ...]:
    """The listening sockets handed to this very process; clears the variables, so that children do not take them."""
    env = os.environ if env is None else env
    count, owner = env.pop("LISTEN_FDS", ""), env.pop("LISTEN_PID", "")
    env.pop("LISTEN_FDNAMES", None)
    if owner != str(os.getpid() if pid is None else pid) or not count.isdigit():
        return ()
    sockets: list[socket.socket] = []
    for handle in range(_FIRST_FD, _FIRST_FD + min(int(count), _MOST_FDS)):
        os.set_inheritable(handle, False)
        sockets.append(socket.socket(fileno=handle))
    return tuple(sockets)


def _watchdog_s(env: Mapping[str, str], pid: int) -> float | None:
    usec = env.get("WATCHDOG_USEC", "")
    if not usec.isdigit() or int(usec) == 0 or env.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(usec) / 1e6
