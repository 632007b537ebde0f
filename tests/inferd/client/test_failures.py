"""What the clients do when the other side refuses, is slow, vanishes or lies."""

from __future__ import annotations

import asyncio
import select
import shutil
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from inferd import Client, errors
from inferd.protocol import Request, encode_response
from tests.inferd.client.both import KINDS, Both
from tests.inferd.client.conftest import Site
from tests.inferd.client.server import (
    TOKEN,
    Server,
    make_certificates,
    scripted,
    server_context,
    serving,
    tcp_socket,
    unix_socket,
)

X = np.zeros(4, np.float32)
both_kinds = pytest.mark.parametrize("kind", KINDS)


def put(source: Path, target: Path) -> None:
    """A copy that is there whole or not at all, as the daemon writes its files."""
    target.with_suffix(".new").write_bytes(source.read_bytes())
    target.with_suffix(".new").replace(target)


def ok(body: bytes = b"{}", more: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def answer() -> bytes:
    length, buffers = encode_response(Request(), "m", "1", {"y": X})
    assert length is None
    return ok(b"".join(buffers))


@both_kinds
async def test_a_call_ends_with_its_deadline(kind: str, site: Site) -> None:
    """A server that does not answer costs `timeout_s` and no more; the connection is not used again."""
    async with Both(kind, site.unix, token=TOKEN) as client:
        while not site.server.peers:  # on a slow machine the time may be up before the server is reached
            with pytest.raises(errors.DeadlineExceeded, match=r"within 0\.2 s") as caught:
                await client.call("infer", "held", {"x": X}, timeout_s=0.2)
            assert caught.value.status is None
        held = set(site.server.peers)
        site.server.hold.set()
        await client.call("infer", "echo", {"x": X})
    assert site.server.peers - held


@both_kinds
async def test_waiting_for_a_connection_counts(kind: str, site: Site) -> None:
    """A full pool makes callers wait, within their deadline."""
    async with Both(kind, site.unix, token=TOKEN, max_connections=1) as client:
        first = asyncio.create_task(client.call("infer", "held", {"x": X}))
        await asyncio.to_thread(site.server.has_request.wait, 10)
        with pytest.raises(errors.DeadlineExceeded):
            await client.call("infer", "echo", {"x": X}, timeout_s=0.05)
        site.server.hold.set()
        await first


@both_kinds
async def test_refusals_are_retried_only_when_asked(kind: str, site: Site) -> None:
    """429 and 503 with a Retry-After, `retries` times, within the deadline; never load, never without the header."""
    busy = (429, {"Retry-After": "0.01"})
    async with Both(kind, site.unix, token=TOKEN) as client:
        site.server.refusals = [busy]
        with pytest.raises(errors.Overloaded):
            await client.call("infer", "echo", {"x": X})
    async with Both(kind, site.unix, token=TOKEN, retries=2) as client:
        site.server.refusals = [busy, (503, {"Retry-After": "0"})]
        await client.call("infer", "echo", {"x": X})
        site.server.refusals = [busy] * 3
        with pytest.raises(errors.Overloaded):
            await client.call("infer", "echo", {"x": X})
        site.server.refusals = [(503, {})]
        with pytest.raises(errors.NotReady):
            await client.call("metadata", "echo")
        site.server.refusals = [(429, {"Retry-After": "60"})]
        with pytest.raises(errors.Overloaded):
            await client.call("infer", "echo", {"x": X}, timeout_s=20)
        site.server.refusals = [busy]
        with pytest.raises(errors.Overloaded):
            await client.call("load", "echo")
    assert not site.server.refusals


@both_kinds
async def test_nobody_listening_is_told_at_once(kind: str, tmp_path: Path) -> None:
    """No socket, and a socket that nobody listens on."""
    async with Both(kind, f"unix:{tmp_path}/none") as client:
        with pytest.raises(errors.ConnectionFailed, match="No such file"):
            await client.call("infer", "echo", {"x": X})
        assert await client.call("is_live") is False
    unix_socket(tmp_path / "stale").close()
    async with Both(kind, f"unix:{tmp_path}/stale?tls=off") as client:
        with pytest.raises(errors.ConnectionFailed, match="refused"):
            await client.call("server_metadata")


@both_kinds
async def test_wait_s_bridges_the_start_of_a_daemon(
    kind: str, tmp_path: Path, certificates: tuple[Path, Path]
) -> None:  # fmt: skip
    """No socket, no CA yet: the call waits until there is a daemon, or until `wait_s` is over."""
    ca, leaf = certificates
    path = tmp_path / "s.sock"
    async with Both(kind, f"unix:{path}", wait_s=0.05) as client:
        with pytest.raises(errors.ConnectionFailed):
            await client.call("server_metadata")
    async with Both(kind, f"unix:{path}", token=TOKEN, wait_s=20) as client:
        waiting = asyncio.create_task(client.call("server_metadata"))
        listening = unix_socket(path)
        put(ca, Path(f"{path}.ca.pem"))
        with serving(Server(), [(listening, server_context(leaf))]):
            assert (await waiting)["name"] == "inferd"
            await client.close()


@both_kinds
async def test_a_kept_connection_that_closed_is_replaced(kind: str, tmp_path: Path) -> None:
    """An inference is sent again over a new connection; a load is not."""
    path = tmp_path / "s"
    url = f"unix:{path}?tls=off"
    with scripted(path, [[answer(), None], [answer()]]) as heard:
        async with Both(kind, url) as client:
            await client.call("infer", "m", {"x": X})
            result = await client.call("infer", "m", {"x": X})
            assert result["y"].tolist() == X.tolist()
    assert len(heard) == 3
    path.unlink()
    with scripted(path, [[ok(), None], [ok()]]) as heard:
        async with Both(kind, url) as client:
            await client.call("load", "m")
            with pytest.raises(errors.ConnectionFailed):
                await client.call("load", "m")
    assert len(heard) == 2


@both_kinds
async def test_a_new_connection_that_closes_is_not_retried(kind: str, tmp_path: Path) -> None:
    """The server may have died of this very request."""
    with scripted(tmp_path / "s", [[None], [answer()]]) as heard:
        async with Both(kind, f"unix:{tmp_path}/s?tls=off") as client:
            with pytest.raises(errors.ConnectionFailed):
                await client.call("infer", "m", {"x": X})
    assert len(heard) == 1


BAD = {
    "no HTTP": (b"SSH-2.0\r\n\r\n", (errors.BadResponse, errors.ConnectionFailed)),
    "cut body": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", errors.ConnectionFailed),
    "not JSON": (ok(b"<html>"), errors.BadResponse),
    "not the protocol": (
        ok(b'{"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1]}]}'),
        errors.BadResponse,
    ),
    "lying sizes": (ok(b'{"outputs":[]} abc', "Inference-Header-Content-Length: 99\r\n"), errors.BadResponse),
    "lying length": (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", (errors.BadResponse, errors.ConnectionFailed)),
}


@both_kinds
@pytest.mark.parametrize("case", BAD)
async def test_answers_that_lie_are_errors_of_ours(kind: str, case: str, tmp_path: Path) -> None:
    """Whatever a peer says, the caller sees our tree."""
    reply, expected = BAD[case]
    with scripted(tmp_path / "s", [[reply]]):
        async with Both(kind, f"unix:{tmp_path}/s?tls=off") as client:
            with pytest.raises(expected):
                await client.call("infer", "m", {"x": X}, timeout_s=30)


@both_kinds
async def test_chunked_and_closing_answers_are_read(kind: str, tmp_path: Path) -> None:
    """As proxies send them; after `Connection: close` a new connection is made."""
    chunked = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n{"a\r\n4\r\n":1}\r\n0\r\nT: x\r\n\r\n'
    early = b"HTTP/1.1 100 Continue\r\n\r\n"
    closing = ok(b'{"b":2}', "Connection: close\r\n")
    with scripted(tmp_path / "s", [[early + chunked, closing], [ok(b'{"c":3}')]]):
        async with Both(kind, f"unix:{tmp_path}/s?tls=off") as client:
            assert await client.call("server_metadata") == {"a": 1}
            assert await client.call("server_metadata") == {"b": 2}
            assert await client.call("server_metadata") == {"c": 3}


def test_an_early_refusal_is_heard_while_sending(tmp_path: Path) -> None:
    """A server that refuses a large body unread and closes is quoted, not reported as a broken pipe."""
    path = tmp_path / "s"
    listener = unix_socket(path)
    listener.listen()

    def refuse() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(1000)
            sock.sendall(
                b'HTTP/1.1 413 X\r\nContent-Length: 19\r\nConnection: close\r\n\r\n{"error":"too much"}'[:-1] + b"}"
            )
            sock.shutdown(socket.SHUT_RD)

    thread = threading.Thread(target=refuse, daemon=True)
    thread.start()
    with Client(f"unix:{path}?tls=off") as client, pytest.raises(errors.TooLarge):
        client.infer("m", {"x": np.zeros(8 << 20, np.uint8)}, timeout_s=10)
    thread.join(10)
    listener.close()


@both_kinds
async def test_another_ca_is_not_trusted(kind: str, site: Site, tmp_path: Path) -> None:
    """TLSError, also from is_live, because that is a fault and not an absence."""
    other, _ = make_certificates(tmp_path, "other")
    for url in (site.unix, site.https):
        async with Both(kind, url, token=TOKEN, ca=other) as client:
            for call in ("server_metadata", "is_live"):
                with pytest.raises(errors.TLSError, match=r"(?i)certificate.verify.failed"):
                    await client.call(call)


@both_kinds
async def test_a_new_ca_is_picked_up(kind: str, site: Site, tmp_path: Path) -> None:
    """When the daemon made itself a new CA, the file beside its socket is read again."""
    right = site.ca.read_bytes()
    other, _ = make_certificates(tmp_path, "other")
    beside = Path(f"{site.socket}.ca.pem")
    shutil.copy(other, beside)
    async with Both(kind, site.unix, token=TOKEN) as client:
        with pytest.raises(errors.TLSError):
            await client.call("server_metadata")
        beside.unlink()
        with pytest.raises(errors.TLSError, match="no CA certificate"):
            await client.call("server_metadata")
        beside.write_text("nonsense")
        with pytest.raises(errors.TLSError, match="is no CA certificate"):
            await client.call("server_metadata")
        beside.write_bytes(right)
        assert (await client.call("server_metadata"))["name"] == "inferd"


@both_kinds
async def test_the_wrong_name_is_not_trusted(kind: str, site: Site) -> None:
    """A certificate for 127.0.0.1 and localhost does not speak for 127.0.0.2."""
    elsewhere = tcp_socket("127.0.0.2")
    port = elsewhere.getsockname()[1]
    with serving(Server(), [(elsewhere, server_context(site.ca.with_name("ca-leaf.pem")))]):
        async with Both(kind, f"https://127.0.0.2:{port}", token=TOKEN, ca=site.ca) as client:
            with pytest.raises(errors.TLSError, match=r"127\.0\.0\.2"):
                await client.call("server_metadata")
    async with Both(kind, site.https.replace("127.0.0.1", "localhost"), token=TOKEN, ca=site.ca) as client:
        await client.call("server_metadata")


def test_closing_while_a_call_runs_harms_it_not(site: Site) -> None:
    """The call ends with its answer, and its connection is closed then."""
    client = Client(site.unix, token=TOKEN)
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(client.infer("held", {"x": X})), daemon=True)
    thread.start()
    assert site.server.has_request.wait(10)
    client.close()
    site.server.hold.set()
    thread.join(10)
    assert len(results) == 1
    assert not client._idle


@both_kinds
async def test_a_daemon_that_systemd_is_starting_is_waited_for(
    kind: str, tmp_path: Path, certificates: tuple[Path, Path]
) -> None:
    """The socket listens before the daemon is there and its CA beside it: the first caller waits for both."""
    ca, leaf = certificates
    path = tmp_path / "s.sock"
    listening = unix_socket(path)
    listening.listen()
    async with Both(kind, f"unix:{path}", token=TOKEN) as client:
        call = asyncio.create_task(client.call("server_metadata"))
        await asyncio.to_thread(select.select, [listening], [], [], 10)
        put(ca, Path(f"{path}.ca.pem"))
        with serving(Server(), [(listening, server_context(leaf))]):
            assert (await call)["name"] == "inferd"
            await client.close()


@both_kinds
async def test_without_a_ca_a_daemon_that_is_up_is_not_waited_for(kind: str, site: Site) -> None:
    """A plain listener called with TLS is told at once."""
    async with Both(kind, site.plain_unix.partition("?")[0], token=TOKEN) as client:
        with pytest.raises(errors.TLSError, match="no CA certificate"):
            await client.call("server_metadata")
