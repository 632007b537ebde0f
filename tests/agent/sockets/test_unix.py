"""Unix sockets: modes, stale ones, and two daemons at once."""

from __future__ import annotations

import asyncio
import grp
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd_agent.config import Listener
from inferd_agent.errors import ConfigError
from inferd_agent.sockets import Bound, PeerCredentials, bind, peer_credentials

# Binds its first argument, says how that went, and stays until its standard input closes.
CHILD = """
import os, sys
from inferd_agent.config import Listener
from inferd_agent.errors import ConfigError
from inferd_agent.sockets import bind
sys.stdin.readline()
try:
    bound = bind([Listener("unix", path=sys.argv[1])], mode=0o600)
except ConfigError as error:
    print("refused:", error, flush=True)
else:
    print("bound", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "inferd.sock"


@pytest.fixture
def opened() -> Iterator[list[Bound]]:
    bound: list[Bound] = []
    yield bound
    for each in bound:
        each.close()


def _bind(path: Path, opened: list[Bound], mode: int = 0o600, group: str = "") -> Bound:
    (bound,) = bind([Listener("unix", path=str(path))], mode=mode, group=group)
    opened.append(bound)
    return bound


def _child(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def _said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate(timeout=30)


def test_mode_group_and_folder_are_as_asked(path: Path, opened: list[Bound]) -> None:
    """The socket gets its mode and group whatever the umask is; a private socket gets a private folder."""
    old = os.umask(0o777)
    try:
        (path.parent.parent / "run").mkdir(mode=0o700)
        (path.parent.parent / "run").chmod(0o700)
        _bind(path, opened, 0o660, group=grp.getgrgid(os.getgid()).gr_name)
    finally:
        os.umask(old)
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert status.st_gid == os.getgid()
    _bind(path.parent / "a" / "s", opened, 0o600)
    _bind(path.parent / "b" / "s", opened, 0o666)
    assert stat.S_IMODE((path.parent / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((path.parent / "b").stat().st_mode) == 0o755


def test_there_is_no_moment_with_a_wider_mode(path: Path, opened: list[Bound], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its group is set the socket is open to nobody but its owner, even under umask 0."""
    seen: list[int] = []
    real = os.chown

    def watch(target: Path, uid: int, gid: int) -> None:
        seen.append(stat.S_IMODE(target.stat().st_mode))
        real(target, uid, gid)

    monkeypatch.setattr("inferd_agent.sockets.os.chown", watch)
    old = os.umask(0)
    try:
        _bind(path, opened, 0o666, group=grp.getgrgid(os.getgid()).gr_name)
    finally:
        os.umask(old)
    assert seen == [0o600]


def test_a_killed_daemons_socket_is_taken_over(path: Path, opened: list[Bound]) -> None:
    """kill -9 leaves a socket and a lock file; the next start serves."""
    child = _child(path)
    _go(child)
    assert _said(child) == "bound\n"
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=30)
    assert path.is_socket()
    bound = _bind(path, opened)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    bound.close()
    assert sorted(path.parent.iterdir()) == []


def test_a_living_daemon_is_left_alone(path: Path, opened: list[Bound]) -> None:
    """A second start is refused, whether the first is one of ours or any other program, and harms neither."""
    _bind(path, opened)
    with pytest.raises(ConfigError, match="another daemon listens here"):
        bind([Listener("unix", path=str(path))], mode=0o600)
    other = path.with_name("other.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(other))
        server.listen(0)
        with pytest.raises(ConfigError, match="it answers"):
            bind([Listener("unix", path=str(other))], mode=0o600)
        assert other.is_socket()
    for each in (path, other):
        with socket.socket(socket.AF_UNIX) as client:
            assert client.connect_ex(str(each)) == (0 if each == path else 111)


def test_of_daemons_that_start_at_once_one_wins(path: Path) -> None:
    """Four processes on one stale socket: exactly one binds, the others say why not."""
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    children = [_child(path) for _ in range(4)]
    try:
        for each in children:
            _go(each)
        said = sorted(_said(each) for each in children)
        assert said[0] == "bound\n"
        assert all("another daemon listens here" in line for line in said[1:])
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    finally:
        for each in children:
            _end(each)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_not_a_socket_is_never_removed(path: Path, kind: str) -> None:
    """A file, a folder or a link in the place of the socket stops the start and stays."""
    path.parent.mkdir()
    target = path.with_name("precious")
    target.write_text("x")
    make = {"file": lambda: path.write_text("x"), "folder": path.mkdir, "link": lambda: path.symlink_to(target)}
    make[kind]()
    with pytest.raises(ConfigError, match="not a socket"):
        bind([Listener("unix", path=str(path))], mode=0o600)
    assert path.exists()
    assert target.read_text() == "x"


def test_close_removes_only_its_own(path: Path, opened: list[Bound]) -> None:
    """A socket that took our place while we ran stays when we leave."""
    bound = _bind(path, opened)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        bound.close()
        bound.close()
        assert path.is_socket()


def test_a_failure_closes_what_was_opened(path: Path, tmp_path: Path) -> None:
    """All listeners or none: after a failure the first path is free again."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot use"):
        bind([Listener("unix", path=str(path)), Listener("unix", path=str(tmp_path / "file/x"))], mode=0o600)
    assert not path.exists()
    with pytest.raises(ConfigError, match="no group 'nobody-here'"):
        bind([Listener("unix", path=str(path))], mode=0o600, group="nobody-here")


async def test_the_kernel_says_who_connects(path: Path, opened: list[Bound]) -> None:
    """Credentials of a process behind the asyncio transport of a real connection, with its groups."""
    bound = await asyncio.to_thread(_bind, path, opened)
    found: asyncio.Future[PeerCredentials | None] = asyncio.get_running_loop().create_future()

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.set_result(peer_credentials(writer.get_extra_info("socket")))
        writer.close()

    server = await asyncio.start_unix_server(serve, sock=bound.sockets[0].dup())
    _, writer = await asyncio.open_unix_connection(str(path))
    peer = await found
    writer.close()
    server.close()
    assert peer is not None
    assert peer[:3] == (os.getpid(), os.getuid(), os.getgid())
    assert set(peer.groups) == set(os.getgroups())
