"""Callers of REST that ask for much and take nothing: cut off in their time, with files and memory back."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from tests import onnx_models
from tests.e2e.daemon import Daemon, until
from tests.e2e.raw import answer, connected, infer_bytes, request

pytestmark = pytest.mark.skipif("TEST_CLIENTS" not in os.environ, reason="takes a minute: make test-clients")

MiB = 1 << 20
ENV = {"INFERD_SERVER_HEADER_TIMEOUT_S": "2", "INFERD_SERVER_BODY_TIMEOUT_S": "4"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon without TLS, whose model `wide` answers with as much as it is given."""
    folder = tmp_path_factory.mktemp("r")
    onnx_models.mlp(folder / "models" / "mlp" / "1" / "model.onnx")
    onnx_models.dynamic_width(folder / "models" / "wide.onnx")
    with Daemon(folder, env=ENV, tls=False) as daemon:
        yield daemon


@pytest.fixture
def prey(daemon: Daemon) -> Iterator[Daemon]:
    """The daemon; in the end it must serve, and have no more files than it had."""
    asks(daemon)
    files = daemon.open_files()
    yield daemon
    asks(daemon)
    until(lambda: daemon.open_files() <= files)


def asks(daemon: Daemon) -> None:
    """A proper caller, who is answered."""
    with connected(str(daemon.socket)) as connection:
        connection.sendall(infer_bytes("mlp", "x", np.zeros((1, 64), np.float32)))
        assert answer(connection)[0] == 200


def is_cut_off(connection: socket.socket) -> bool:
    """Whether the daemon ended the connection, after what had been sent of an answer."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(1 << 20):
            pass
    return True


def test_answers_that_are_not_taken(prey: Daemon) -> None:
    """Callers that ask for 16 MiB each and read nothing are cut off; what their answers took is free again."""
    data = infer_bytes("wide", "x", np.zeros((1, 4 * MiB), np.float32))

    def hoard() -> None:
        before = prey.open_files()
        with contextlib.ExitStack() as crowd:
            lines = [crowd.enter_context(connected(str(prey.socket), timeout_s=30)) for _ in range(4)]
            for line in lines:
                line.sendall(data)
            until(lambda: prey.open_files() <= before)
            assert all(is_cut_off(line) for line in lines)

    hoard()
    before = prey.rss_bytes()
    for _ in range(3):
        hoard()
    until(lambda: prey.rss_bytes() < before + 192 * MiB)  # half of what these moved; what is free is kept for reuse


def test_requests_without_end_whose_answers_are_not_taken(prey: Daemon) -> None:
    """A caller that only sends is not read any more once its answers pile up, and is cut off."""
    before, files = prey.rss_bytes(), prey.open_files()
    flood = request("GET", "/v2") * 1000
    with connected(str(prey.socket), timeout_s=1) as line, contextlib.suppress(TimeoutError, ConnectionError):
        for _ in range(1000):
            line.sendall(flood)
        pytest.fail("100 MB of requests were taken, and their answers kept")
    until(lambda: prey.rss_bytes() < before + 64 * MiB)
    until(lambda: prey.open_files() <= files)


@pytest.mark.parametrize(
    "body",
    [
        b"1\r\na\r\n" * 50_000,
        b"1;" + b"e" * 100_000 + b"\r\na\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n",
        b"-1\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 50_000,
    ],
)
def test_chunks_that_are_meant_badly(prey: Daemon, body: bytes) -> None:
    """Tiny, long-winded, beyond counting, negative, followed by fields without end: refused, or cut off in time."""
    head = request("POST", "/v2/models/mlp/infer", b"", {"Transfer-Encoding": "chunked"})
    with connected(str(prey.socket), timeout_s=30) as line, contextlib.suppress(ConnectionError):
        line.sendall(head + body)
        assert 400 <= answer(line)[0] < 500
        line.shutdown(socket.SHUT_WR)
        assert is_cut_off(line)
