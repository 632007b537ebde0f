"""Stops and restarts while callers connect: none of them is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from inferd import Client
from tests import onnx_models
from tests.e2e.daemon import INFERD, Daemon, until
from tests.e2e.raw import answer, connected, request

X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)


def test_a_handshake_under_way_at_the_stop_is_finished(fresh: Daemon) -> None:
    """A caller whose greeting came half before SIGTERM and half long after it gets its answer."""
    fresh.start()
    assert fresh.process is not None
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context(cafile=str(fresh.ca)).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with connected(str(fresh.socket), fresh.ca) as kept, socket.socket(socket.AF_UNIX) as slow:
        kept.sendall(request("GET", "/v2/health/live"))
        assert answer(kept)[0] == 200
        slow.settimeout(20)
        slow.connect(str(fresh.socket))
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        slow.sendall(hello[:20])
        fresh.process.send_signal(signal.SIGTERM)
        assert kept.recv(1) == b""  # idle connections are ended after the time for farewells
        kept.close()
        with pytest.raises(subprocess.TimeoutExpired):
            fresh.process.wait(1.5)
        slow.sendall(hello[20:])
        _pump(slow, tls, incoming, outgoing)
        tls.write(request("GET", "/v2/health/live"))
        slow.sendall(outgoing.read())
        data = b""
        while b"\r\n\r\n" not in data:
            incoming.write(slow.recv(1 << 16))
            try:
                data += tls.read(1 << 16)
            except ssl.SSLWantReadError:
                continue
        assert data.startswith(b"HTTP/1.1 200")
    assert fresh.stop() == 0


def _pump(sock: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
    """Finish the handshake."""
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            incoming.write(sock.recv(1 << 16))
            continue
        finally:
            if pending := outgoing.read():
                sock.sendall(pending)
        return


class Activated:
    """What inferd.socket is to inferd.service: holds the listening socket and starts daemons on it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s.sock"
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.path))
        self.socket.listen(1024)
        self._log = folder / "log"
        options = ("--models", folder / "models", "--state", folder / "state", "--listen", f"unix:{self.path}")
        self._command = ("/bin/sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", INFERD, "serve", *map(str, options))

    @contextlib.contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        """A daemon on the socket, until the block ends."""
        env = {**os.environ, "INFERD_PLANNING_MODE": "off", "LISTEN_FDS": "1"}
        handle = self.socket.fileno()
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(3, handle),
                preexec_fn=lambda: os.dup2(handle, 3),
            )  # fmt: skip
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(30) == 0, self._log.read_text()
            finally:
                process.kill()


def test_a_restart_on_an_inherited_socket_loses_no_caller(tmp_path: Path) -> None:
    """New connections from the first start on and through two restarts: each is answered, rightly, by one daemon or the
    next, once its models are up."""
    onnx_models.mlp(tmp_path / "models" / "mlp" / "1" / "model.onnx")
    activated, expected = Activated(tmp_path), onnx_models.mlp_reference(X)
    stop, counts, errors = threading.Event(), [0] * 4, []

    def call(place: int) -> None:
        while not stop.is_set():
            try:
                with Client(f"unix:{activated.path}", timeout_s=50) as client:
                    if not np.allclose(client.infer("mlp", {"x": X})["probabilities"], expected, atol=0.02):
                        errors.append("wrong answer")
            except Exception as error:
                errors.append(error)
            counts[place] += 1

    callers = [threading.Thread(target=call, args=(place,)) for place in range(len(counts))]
    try:
        for start in range(3):
            with activated.daemon():
                if not start:
                    for caller in callers:
                        caller.start()
                before = min(counts)
                until(lambda before=before: min(counts) > before + 10, 50)  # type: ignore[misc]
                if start == 2:
                    stop.set()
                    for caller in callers:
                        caller.join(50)
    finally:
        stop.set()
        activated.socket.close()
    assert errors == []
    assert Path(f"{activated.path}.ca.pem").exists()
