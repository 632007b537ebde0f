"""sd_notify and LISTEN_FDS on real sockets."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd_agent.systemd import Notifier, take_sockets


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@inferd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + address[1:] if address.startswith("@") else address)
        sock.settimeout(10)
        yield sock, address


async def test_the_manager_hears_each_state(manager: tuple[socket.socket, str]) -> None:
    """Ready, status, reload with the monotonic time, watchdog and stop arrive as systemd reads them, from the loop."""
    sock, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address}, monotonic_ns=lambda: 5_000_000)
    assert notifier.is_active
    notifier.ready("3 models")
    notifier.status("two\nlines")
    notifier.reloading()
    notifier.watchdog()
    notifier.stopping()
    notifier.stopping("nearly", within_s=2.5)
    assert [sock.recv(4096) for _ in range(6)] == [
        b"READY=1\nSTATUS=3 models",
        b"STATUS=two lines",
        b"RELOADING=1\nMONOTONIC_USEC=5000",
        b"WATCHDOG=1",
        b"STOPPING=1",
        b"STOPPING=1\nEXTEND_TIMEOUT_USEC=2500000\nSTATUS=nearly",
    ]


def test_outside_systemd_nothing_happens(tmp_path: Path) -> None:
    """No variable, or a manager that is gone: no error, no watchdog, no sockets."""
    quiet = Notifier({})
    quiet.ready()
    assert (quiet.is_active, quiet.watchdog_s) == (False, None)
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert take_sockets({}) == ()


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "7"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_is_for_this_process_only(env: dict[str, str], expected: float | None) -> None:
    """The interval counts only where it is meant for us."""
    assert Notifier(env, pid=7).watchdog_s == expected


def test_sockets_are_taken_once_and_not_inherited() -> None:
    """A child started with two descriptors, as systemd does, gets both as sockets, and its own children get none."""
    code = (
        "import os\n"
        "from inferd_agent.systemd import take_sockets\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "first = take_sockets()\n"
        "print(len(first), [s.get_inheritable() for s in first], first[1].getsockname()[1], len(take_sockets()))\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        high = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD_CLOEXEC, 100) for each in (a, b)]
        done = subprocess.run(
            [sys.executable, "-c", f"import os\nos.dup2({high[0]}, 3)\nos.dup2({high[1]}, 4)\n{code}"],
            pass_fds=high, env={**os.environ, "LISTEN_FDS": "2"}, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        for handle in high:
            os.close(handle)
        assert done.stdout.split("\n")[0] == f"2 [False, False] {b.getsockname()[1]} 0", done.stderr


def test_sockets_of_another_process_are_left_alone() -> None:
    """LISTEN_PID of somebody else: nothing is taken, and the variables are gone."""
    env = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "a"}
    assert take_sockets(env, pid=2) == ()
    assert env == {}
