"""Listeners seen from the outside, on real sockets."""

from __future__ import annotations

import contextlib
import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inferd_agent.config import parse_listener
from inferd_agent.doctor.doors import Door, Wanted, check_doors, knock
from inferd_agent.doctor.finding import Finding, Level
from inferd_agent.doctor.places import Place

WANTED = Wanted(0o660, "")
UNIX = parse_listener("unix:/run/inferd/inferd.sock")
TCP = parse_listener("tcp:0.0.0.0:8470")
SOCKET = Place(UNIX.path, True, stat.S_IFSOCK | 0o660)


def bad(*doors: Door, wanted: Wanted = WANTED) -> list[Finding]:
    return [each for each in check_doors(doors, wanted, "start it") if each.level is not Level.OK]


def test_all_is_well_where_the_daemon_answers_everywhere() -> None:
    """Nothing to mend."""
    assert bad(Door(UNIX, "ready", place=SOCKET), Door(TCP, "ready")) == []


def test_no_daemon_is_one_warning() -> None:
    """Not one for each listener, and its fix is how to start it."""
    (found,) = bad(Door(UNIX, "nobody"), Door(TCP, "nobody"))
    assert (found.level, found.fix) == (Level.WARNING, "start it")


def test_a_running_daemon_must_listen_everywhere() -> None:
    """One listener that it lacks means a configuration it has not read."""
    (found,) = bad(Door(UNIX, "ready", place=SOCKET), Door(TCP, "nobody"))
    assert (found.level, "not here" in found.text) == (Level.ERROR, True)


@pytest.mark.parametrize(
    ("door", "level", "said"),
    [
        (Door(TCP, "foreign", "it speaks no TLS"), Level.ERROR, "taken by another program"),
        (Door(UNIX, "no access", "your user may not open it", SOCKET), Level.WARNING, "may not open"),
        (Door(UNIX, "not ready", place=SOCKET), Level.WARNING, "not every model"),
    ],
)
def test_what_else_may_be_there(door: Door, level: Level, said: str) -> None:
    """A stranger on the port, a closed door, a daemon with a model down."""
    found = bad(door)
    assert (found[-1].level, said in found[-1].text) == (level, True)


def test_a_sockets_mode_and_group_are_compared() -> None:
    """systemd's socket unit may say otherwise than the configuration; both differences are told."""
    door = Door(UNIX, "ready", place=SOCKET, group="root")
    texts = [each.text for each in bad(door, wanted=Wanted(0o600, "inferd"))]
    assert ["mode 0660" in texts[0], "group root" in texts[1]] == [True, True]


def test_knocking_where_nobody_is(tmp_path: Path) -> None:
    """A missing socket, a left-over one, a file in its place, a free port."""
    path = tmp_path / "s.sock"
    assert knock(parse_listener(f"unix:{path}"), ()).answer == "nobody"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    left_over = knock(parse_listener(f"unix:{path}"), ())
    assert (left_over.answer, "left over" in left_over.detail) == ("nobody", True)
    (tmp_path / "file").write_text("")
    assert knock(parse_listener(f"unix:{tmp_path / 'file'}"), ()).answer == "foreign"
    with socket.socket() as kept:  # from others, who would listen there
        kept.bind(("127.0.0.1", 0))
        assert knock(parse_listener(f"tcp:127.0.0.1:{kept.getsockname()[1]}"), ()).answer == "nobody"


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        (b'{"error":"expected","status":400}\n', "ready"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "foreign"),
        (b"[1]\n", "foreign"),
        (b"", "foreign"),
    ],
)
def test_a_socket_for_memory_is_asked_in_its_own_way(tmp_path: Path, answer: bytes, level: str) -> None:
    """It speaks no HTTP; whoever else listens there is a stranger."""
    listener = parse_listener(f"memory+unix:{tmp_path / 'm.sock'}")
    with socket.socket(socket.AF_UNIX) as server, ThreadPoolExecutor(1) as pool:
        server.bind(listener.path)
        server.listen()

        def refuse() -> bytes:
            connection, _ = server.accept()
            with connection:
                line = connection.recv(100)
                connection.sendall(answer)
            return line

        came = pool.submit(refuse)
        assert knock(listener, ()).answer == level
        assert came.result(10) == b"{}\n"


def answering(*said: bytes) -> Iterator[int]:
    """A server on a port, which says this to the first caller and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            caller, _ = server.accept()
            with caller, contextlib.suppress(ConnectionError):  # who had enough may be gone
                caller.recv(4096)
                caller.sendall(b"".join(said))

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


HEAD = b"\0\0\1\1\4\0\0\0\1\x88"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (HEAD + b"\0\0\7\0\0\0\0\0\1\0\0\0\0\2\x08\1" + b"\0\0\0\1\5\0\0\0\1", "ready"),
        (HEAD + b"\0\0\5\0\0\0\0\0\1\0\0\0\0\0" + b"\0\0\0\1\5\0\0\0\1", "not ready"),
        (b"\0\0\1\1\5\0\0\0\1\x88", "foreign"),
        (b"\0\0\4\3\0\0\0\0\1\0\0\0\x08", "foreign"),
        (b"\xff\xff\xff" + bytes(100), "foreign"),
        (bytes(1 << 17), "foreign"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "foreign"),
        (b"", "foreign"),
    ],
)
def test_what_may_answer_a_grpc_call(said: bytes, answer: str) -> None:
    """A daemon, one whose models are not up, and whatever else may hold the port."""
    with contextlib.contextmanager(answering)(said) as port:
        assert knock(parse_listener(f"grpc+tcp:127.0.0.1:{port}?tls=off&insecure=on"), ()).answer == answer
