"""Connections: slow and lying senders, pipelines, old HTTP, vanishing callers, limits, drain."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import onnx_models
from tests.agent.rest.serving import ROW, Serving, infer_bytes, infer_parts, is_closed, read_reply, request

Serve = Callable[..., Serving]
GOOD = infer_bytes("mlp", ROW)
SLOW = infer_bytes("slow", np.ones((1, 512), np.float32))


def until(claim: Callable[[], bool], timeout_s: float = 45) -> None:
    """Wait for a condition."""
    end = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mlp only."""
    root = tmp_path_factory.mktemp("small")
    onnx_models.mlp(root / "mlp" / "1" / "model.onnx")
    (root / "mlp" / "model.toml").write_text('engine = "onnxruntime"\n')
    return root


def test_pipelining_keeps_order(served: Serving) -> None:
    """Requests sent at once are answered one by one, in order, slow ones and refusals between them too."""
    wanted = [GOOD, SLOW, request("GET", "/nowhere"), GOOD, GOOD, request("GET", "/v2"), GOOD]
    with served.connected() as connection:
        connection.sendall(b"".join(wanted))
        connection.settimeout(20)
        data = b""
        statuses = []
        for _ in wanted:
            while b"\r\n\r\n" not in data:
                data += connection.recv(65536)
            head, _, data = data.partition(b"\r\n\r\n")
            length = int(head.lower().split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
            while len(data) < length:
                data += connection.recv(65536)
            data = data[length:]
            statuses.append(int(head.split()[1]))
    assert statuses == [200, 200, 404, 200, 200, 200, 200]


@pytest.mark.usefixtures("patience")
def test_long_pipelines_are_answered_after_bodies_that_came_late(served: Serving) -> None:
    """However many bodies came after their heads before, a long pipeline on the same connection is answered whole."""
    body, headers = infer_parts(ROW)
    head = request("POST", "/v2/models/mlp/infer", b"", {**headers, "Content-Length": str(len(body))})
    refused = request("POST", "/nowhere", b"", {"Content-Length": str(len(body))})
    live = request("GET", "/v2/health/live")
    with served.connected() as connection:
        for late, status in ((head, 200), (refused, 404)) * 20:
            before = served.app.counters.requests.copy()
            connection.sendall(late)
            if late is head:
                until(lambda: any(each.is_busy for each in served.app._server.open))
            else:
                until(lambda before=before: served.app.counters.requests != before)  # type: ignore[misc]
            connection.sendall(body + live)
            replies = b""
            while replies.count(b"HTTP/1.1 ") < 2 or not replies.endswith(b'{"live":true}'):
                replies += connection.recv(65536)
            assert replies.startswith(b"HTTP/1.1 %d " % status)
        connection.sendall(live * 100)
        replies = b""
        while replies.count(b'{"live":true}') < 100:
            replies += connection.recv(65536)


def test_another_protocol_ends_the_connection(served: Serving) -> None:
    """A caller that asks to go over to another protocol is answered, and told that nothing else will be."""
    for name in ("websocket", "tcp", "h2c"):
        asked = GOOD.replace(b"\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: %b\r\n" % name.encode(), 1)
        with served.connected() as connection:
            connection.sendall(asked + GOOD)
            reply = read_reply(connection)
            assert (reply.status, reply.headers["connection"]) == (200, "close")
            assert is_closed(connection)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_dribbled_requests(served: Serving, size: int) -> None:
    """A request may arrive in any pieces."""
    with served.connected() as connection:
        for at in range(0, len(GOOD), size):
            connection.sendall(GOOD[at : at + size])
        assert read_reply(connection).status == 200


def test_http_1_0(served: Serving) -> None:
    """HTTP/1.0 closes after its answer, unless it asks to keep alive."""
    old = GOOD.replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    with served.connected() as connection:
        connection.sendall(old.replace(b"\r\n", b"\r\nConnection: keep-alive\r\n", 1))
        assert read_reply(connection).headers["connection"] == "keep-alive"
        connection.sendall(old)
        assert read_reply(connection).headers["connection"] == "close"
        assert is_closed(connection)


def test_chunked_bodies(served: Serving) -> None:
    """A chunked body is read; one that grows over the limit is refused; a malformed one too."""
    body, headers = infer_parts(ROW)
    headers["Transfer-Encoding"] = "chunked"
    head = request("POST", "/v2/models/mlp/infer", b"", headers)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(body[i : i + 50]), body[i : i + 50]) for i in range(0, len(body), 50))
    assert served.ask(head + chunks + b"0\r\n\r\n").status == 200
    with served.connected() as connection:
        connection.sendall(head)
        piece = b"10000\r\n" + bytes(65536) + b"\r\n"
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                connection.sendall(piece)
        assert read_reply(connection).status == 413
    with served.connected() as connection:
        connection.sendall(head + b"5\r\nabcde")
        until(lambda: any(each.is_busy for each in served.app._server.open))
        connection.sendall(b"zz\r\n\r\n")
        reply = read_reply(connection)
        assert (reply.status, "malformed" in reply.error) == (400, True)
        assert is_closed(connection)


def test_expect_continue(served: Serving) -> None:
    """Leave to send is given once the caller is known and the size is fine, and not otherwise."""
    body, headers = infer_parts(ROW)
    head = request(
        "POST", "/v2/models/mlp/infer", b"", {**headers, "Content-Length": str(len(body)), "Expect": "100-continue"}
    )
    with served.connected() as connection:
        connection.sendall(head)
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_reply(connection).status == 200
    assert served.ask(head, tcp=True).status == 401


def test_no_http_at_all(served: Serving) -> None:
    """Noise gets a 400 in the one form, and a closed connection."""
    for noise in (
        b"\x16\x03\x01\x02\x00" + b"\xff" * 64 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
    ):
        with served.connected() as connection:
            connection.sendall(noise)
            reply = read_reply(connection)
            assert (reply.status, bool(reply.error)) == (400, True)
            assert is_closed(connection)


def test_large_heads_are_refused(served: Serving) -> None:
    """One long line, many lines, and a head that never ends are all refused with 431."""
    for lines in (b"A: " + b"x" * 20_000 + b"\r\n", b"".join(b"A%d: %b\r\n" % (i, b"x" * 500) for i in range(60))):
        reply = served.ask(b"GET /v2 HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
        assert (reply.status, bool(reply.error)) == (431, True)


def test_the_size_of_a_head_is_what_the_configuration_says(serve: Serve, small: Path) -> None:
    """max_header_bytes: a head that is fine by default is refused where less is allowed, and the limit is told."""
    head = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 2000 + b"\r\n\r\n"
    reply = serve(small, max_header_bytes=1024).ask(head)
    assert reply.status == 431
    assert "1024 bytes" in reply.error


def test_vanished_callers_cancel_their_jobs(served: Serving) -> None:
    """A closed connection cancels what it asked for, and leaves nothing behind, however far its request is."""
    before = served.app.counters.requests.get(("infer", 499), 0)
    with served.holding() as jobs:
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(served.connected()).sendall(SLOW)
            until(lambda: len(jobs) == 8)
        until(lambda: all(job.is_cancelled for job in jobs))
    until(lambda: served.app.counters.requests.get(("infer", 499), 0) - before == 8)
    for _ in range(8):
        with served.connected() as connection:
            connection.sendall(SLOW)
    until(lambda: served.bridge.pending == 0 and served.app._bodies.held == 0)
    assert served.ask(GOOD).status == 200


def test_slow_senders_are_cut_off(serve: Serve, small: Path) -> None:
    """Heads and bodies that do not come in time end in 408, a silent connection too; others are served meanwhile."""
    serving = serve(small, header_timeout_s=2, body_timeout_s=2)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(serving.connected()) for _ in range(3)]
        for connection, start in zip(slow, (b"", GOOD[:20], GOOD[:-100]), strict=True):
            connection.sendall(start)
        assert serving.ask(GOOD).status == 200
        for connection in slow:
            reply = read_reply(connection)
            assert (reply.status, bool(reply.error)) == (408, True)
            assert is_closed(connection)
    with serving.connected() as connection:
        connection.sendall(GOOD)
        assert read_reply(connection).status == 200
        connection.sendall(GOOD[:20])
        assert read_reply(connection).status == 408


def test_idle_connections_end(serve: Serve, small: Path) -> None:
    """A kept connection ends after its idle time, whichever way its requests went."""
    serving = serve(small, keepalive_s=0.3)
    for data in (GOOD, request("GET", "/v2")):
        with serving.connected() as connection:
            connection.sendall(data)
            assert read_reply(connection).status == 200
            assert is_closed(connection)


def test_too_many_connections(serve: Serve, small: Path) -> None:
    """Beyond the limit a connection is told 503 and closed; a place that becomes free is given."""
    serving = serve(small, max_connections=2)
    with serving.connected() as first, serving.connected() as second:
        for connection in (first, second):
            connection.sendall(GOOD)
            assert read_reply(connection).status == 200
        with serving.connected() as third:
            reply = read_reply(third)
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert is_closed(third)
    until(lambda: serving.app.counters.connections == 0)
    assert serving.ask(GOOD).status == 200


def test_bodies_in_flight_are_bounded(serve: Serve, small: Path) -> None:
    """When all connections together hold too much, the next body is refused with 429 and told when to come back."""
    serving = serve(small, max_inflight_bytes=1_000_000, max_body_bytes=900_000)
    head = request("POST", "/v2/models/mlp/infer", b"", {"Content-Length": "900000"})
    with serving.connected() as first, serving.connected() as second:
        first.sendall(head)
        until(lambda: serving.app._bodies.held == 900_000)
        second.sendall(head)
        reply = read_reply(second)
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    until(lambda: serving.app._bodies.held == 0)


def test_drain_answers_what_was_accepted(serve: Serve, models: Path) -> None:
    """A stop closes the listeners, answers what is under way, and ends kept connections cleanly."""
    serving = serve(models)
    with serving.connected() as busy, serving.connected() as idle:
        idle.sendall(GOOD)
        assert read_reply(idle).status == 200
        found: list[bool] = []
        stopping = threading.Thread(target=lambda: found.append(serving.stop()))
        with serving.holding() as jobs:
            for _ in range(3):
                busy.sendall(SLOW)
            until(lambda: bool(jobs))
            stopping.start()
            until(lambda: not Path(serving.path).exists())
        assert read_reply(busy).status == 200
        assert is_closed(idle)
        stopping.join(60)
    assert found == [True]
    assert not Path(serving.path).exists()


def test_callers_on_this_machine_are_known_by_their_process(served: Serving) -> None:
    """Whoever asked something since the last look is named; a silent connection and a TCP peer are not."""
    served.get("/v2")
    assert served.app.callers() <= {os.getpid()}
    with served.connected() as silent, served.connected(tcp=True) as remote:
        remote.sendall(request("GET", "/v2/health/live"))
        read_reply(remote)
        assert served.app.callers() == set()
        silent.sendall(GOOD)
        read_reply(silent)
        assert served.app.callers() == {os.getpid()}
        assert served.app.callers() == set()
