"""Callers of gRPC that mean harm, by frames that no library would send. Each comes to a clean end, and the daemon
serves on with what it had: files, threads and memory."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import struct
from collections.abc import Callable, Iterator

import grpc
import pytest

from tests import onnx_models
from tests.clients.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SERVICE,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    call,
    frame,
    message,
    reset,
)
from tests.clients.prey import Prey, ends, infer
from tests.e2e.daemon import Daemon, until
from tests.e2e.raw import connected, free_port

pytestmark = pytest.mark.skipif("TEST_CLIENTS" not in os.environ, reason="takes a minute: make test-clients")

OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAUTHENTICATED = (
    0, 3, 4, 8, 12, 13, 16,
)  # fmt: skip
MiB = 1 << 20
MOST_CONNECTIONS, STREAMS = 64, 128
ENV = {
    "INFERD_SERVER_HEADER_TIMEOUT_S": "2",
    "INFERD_SERVER_BODY_TIMEOUT_S": "4",
    "INFERD_SERVER_MAX_CONNECTIONS": str(MOST_CONNECTIONS),
    "INFERD_SERVER_MAX_BODY_BYTES": str(4 * MiB),
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prey]:
    """mlp, and wide, whose answer is as long as its input; small limits."""
    folder = tmp_path_factory.mktemp("h")
    onnx_models.mlp(folder / "models" / "mlp" / "1" / "model.onnx")
    onnx_models.dynamic_width(folder / "models" / "wide.onnx")
    port, tls_port = free_port(), free_port()
    listen = (f"grpc+tcp:127.0.0.1:{port}?tls=off&insecure=on", f"grpc+tcp:127.0.0.1:{tls_port}")
    with Daemon(folder, listen=listen, env=ENV) as daemon:
        prey = Prey(daemon, port, tls_port, (("authorization", f"Bearer {daemon.token()}"),))
        prey.warm_up()
        yield prey


@pytest.fixture
def prey(daemon: Prey) -> Iterator[Prey]:
    """The daemon; in the end it must serve, and have no more files and threads than it had."""
    files, threads = daemon.daemon.open_files(), daemon.threads()
    yield daemon
    assert daemon.serves()
    until(lambda: daemon.daemon.open_files() <= files)
    until(lambda: daemon.threads() <= threads, timeout_s=90)  # gRPC lets its own go after some time
    assert '"error"' not in daemon.daemon.log()


@pytest.mark.parametrize("path", [b"/\xff\xfe", b"", b"no slash", b"/" + b"x" * 5000, SERVICE.encode()])
def test_strange_paths(prey: Prey, path: bytes) -> None:
    """Whatever the path is made of, it is one that is not served."""
    with prey.dial() as line:
        line.send(call(1, path), message(1, b""))
        assert line.status(1) == UNIMPLEMENTED


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + b"\xff" * 512,
        bytes(1000),
        PREFACE[:10],
        PREFACE + bytes(1000),
        PREFACE + b"\xff" * 1000,
        PREFACE + frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
    ],
)
def test_noise_on_the_port(prey: Prey, noise: bytes) -> None:
    """Without TLS and with it, what begins no conversation is hung up on."""
    for port in (prey.port, prey.tls_port):
        with connected(("127.0.0.1", port), timeout_s=30) as sock, contextlib.suppress(ConnectionResetError):
            sock.sendall(noise)
            while sock.recv(4096):
                pass


def test_a_caller_that_says_nothing(prey: Prey) -> None:
    """Neither stays a silent connection, nor one that stops in a handshake, be it of TLS or of HTTP/2."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    for port, start in ((prey.port, PREFACE + frame(SETTINGS, 0, 0)), (prey.tls_port, hello)):
        with connected(("127.0.0.1", port), timeout_s=30) as sock:
            sock.sendall(start)
            while sock.recv(4096):
                pass


BROKEN = {
    "a frame over the limit": frame(DATA, 0, 1, bytes(MiB)),
    "a stream of the daemon's": call(2, "ServerLive"),
    "an older stream": call(5, "ServerLive") + call(3, "ServerLive"),
    "data for nobody": frame(DATA, 0, 0, b"abc"),
    "a continuation of nothing": frame(CONTINUATION, END_HEADERS, 1, block([("a", "b")])),
    "something within a head": call(1, "ServerLive", flags=0) + frame(PING, 0, 0, bytes(8)),
    "a broken head": frame(HEADERS, END_HEADERS, 1, b"\x82\xff\xff\xff\xff\xff\xff\xff\xff"),
    "settings of odd size": frame(SETTINGS, 0, 0, b"abc"),
    "settings of a stream": frame(SETTINGS, 0, 3, b""),
    "a ping of odd size": frame(PING, 0, 0, b"abc"),
    "too large a window": frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 1)) * 2,
    "a reset of odd size": call(1, "ServerLive") + frame(RST_STREAM, 0, 1, b"a"),
    "padding beyond the frame": call(1, "ServerLive") + frame(DATA, 8, 1, b"\xff" + bytes(5)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_frames_that_break_the_protocol(prey: Prey, case: str) -> None:
    """The call ends, or the connection does; nobody else's."""
    with prey.dial() as other, prey.dial() as line:
        line.send(BROKEN[case])
        line.send(call(101, "ServerLive"), message(101, b""))
        line.status(101)
        other.send(call(1, "ServerLive"), message(1, b""))
        assert other.status(1) == OK


def test_messages_that_are_none(prey: Prey) -> None:
    """Too long, cut off, with unknown flags, compressed by nothing, by something unknown, and beyond the limit."""
    bomb = gzip.compress(bytes(64 * MiB))
    gzipped = (*prey.known, ("grpc-encoding", "gzip"))
    cases = [
        (prey.known, b"\0\xff\xff\xff\xff" + bytes(100), (RESOURCE_EXHAUSTED,)),
        (prey.known, b"\0\0\0\1\0abc", (INVALID_ARGUMENT,)),
        (prey.known, b"\7\0\0\0\4aaaa", (INVALID_ARGUMENT, INTERNAL, 5)),
        (prey.known, b"\1\0\0\0\4aaaa", (INVALID_ARGUMENT, INTERNAL, 5)),
        (gzipped, b"\1\0\0\0\4aaaa", (INTERNAL,)),
        ((*prey.known, ("grpc-encoding", "xyz")), b"\1\0\0\0\4aaaa", (INTERNAL, UNIMPLEMENTED)),
        (gzipped, struct.pack(">BI", 1, len(bomb)) + bomb, (RESOURCE_EXHAUSTED,)),
    ]
    for known, data, statuses in cases:
        with prey.dial() as line:
            parts = [data[at : at + 16000] for at in range(0, len(data), 16000)]
            line.send(call(1, "ModelInfer", known), *[frame(DATA, 0, 1, part) for part in parts[:-1]])
            line.send(frame(DATA, END_STREAM, 1, parts[-1]))
            assert line.status(1) in statuses, data[:10]


def test_half_closed(prey: Prey) -> None:
    """Calls that end before they began, and connections that are closed on one side."""
    closed = END_HEADERS | END_STREAM
    with prey.dial() as line:
        line.send(
            call(1, "ModelInfer", prey.known, flags=closed), call(3, "ModelStreamInfer", prey.known, flags=closed)
        )
        line.send(call(5, "ServerLive", flags=closed), call(7, "ModelInfer", flags=closed))
        statuses = [line.status(stream) for stream in (1, 3, 5, 7)]
        assert statuses == [INVALID_ARGUMENT, OK, OK, UNAUTHENTICATED]
    with prey.dial() as line:
        line.send(call(1, "ModelStreamInfer", prey.known), message(1, infer("mlp", 64), flags=0))
        line.shut()
        line.until_closed()


def test_of_strangers_nothing_is_read(prey: Prey) -> None:
    """Health is answered, and other calls are refused, while the message is still to come."""
    with prey.dial() as line:
        line.send(call(1, "ServerLive"), call(3, b"/grpc.health.v1.Health/Check"), call(5, "ModelInfer"))
        assert [line.status(stream) for stream in (1, 3, 5)] == [OK, OK, UNAUTHENTICATED]


def test_a_message_that_trickles_in(prey: Prey) -> None:
    """It has the time that a body has."""
    with prey.dial() as line:
        line.send(call(1, "ModelInfer", prey.known), frame(DATA, 0, 1, b"\0\0\0\1\0abc"))
        assert line.status(1) == DEADLINE_EXCEEDED


def test_thousands_of_streams(prey: Prey) -> None:
    """A principal gets its part of them, a connection what it was allowed; the rest is refused, and the connection
    lives."""
    with prey.dial() as line:
        line.send(*[call(number, "ModelStreamInfer", prey.known) for number in range(1, 6001, 2)])
        line.read_until(lambda: len(ends(line)) >= 3000 - MOST_CONNECTIONS // 4)
        assert prey.serves()
        line.send(*[reset(number) for number in range(1, 6001, 2)])
        line.send(*[call(number, "ServerLive", flags=5) for number in range(7001, 7041, 2)])
        assert line.status(7039) in (OK, None)


def test_streams_that_are_abandoned(prey: Prey) -> None:
    """Left with requests under way, with their connection and without."""
    for _ in range(10):
        with prey.dial() as line:
            for number in range(1, 41, 2):
                line.send(call(number, "ModelStreamInfer", prey.known))
                line.send(*[message(number, infer("mlp", 64), flags=0)] * 5)
            line.send(*[reset(number) for number in range(1, 21, 2)])


def test_a_flood_of_resets(prey: Prey) -> None:
    """Calls that are begun and reset at once: others are served, or told at once that all places are taken."""
    with prey.dial() as honest, prey.dial() as line:
        for number in range(1, 6001, 2):
            line.send(call(number, "ModelInfer", prey.known), message(number, infer("mlp", 64)), reset(number))
            if number % 1000 == 1:
                honest.send(call(number, "ModelInfer", prey.known), message(number, infer("mlp", 64)))
        assert {honest.status(number) for number in range(1, 6001, 1000)} <= {OK, RESOURCE_EXHAUSTED}
    until(prey.serves)


def test_floods_of_control_frames(prey: Prey) -> None:
    """Pings end the connection; settings and windows do no harm."""
    with prey.dial() as line:
        line.send(*[frame(PING, 0, 0, b"flooding")] * 5000)
        assert any(each.kind == GOAWAY for each in line.until_closed())
    for flood in (frame(SETTINGS, 0, 0), frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1))):
        with prey.dial() as line:
            line.send(flood * 20000)
            line.send(call(1, "ServerLive"), message(1, b""))
            assert line.status(1) in (OK, None)


def test_floods_of_metadata(prey: Prey) -> None:
    """One long value, many in one frame, and a head without an end."""
    with prey.dial() as line:
        line.settled().send(call(1, "ServerLive", [(f"k{number}", "v" * 100) for number in range(140)]))
        assert line.status(1) == RESOURCE_EXHAUSTED
        line.send(call(3, "ServerLive", flags=5))
        assert line.status(3) == OK
    part = frame(CONTINUATION, 0, 1, block([(f"k{number}", "v" * 50) for number in range(200)]))
    with prey.dial() as line:
        line.send(call(1, "ServerLive", flags=0))
        for _ in range(200):
            line.send(part)
        line.shut()
        line.until_closed()


def test_connections_beyond_the_limit(prey: Prey) -> None:
    """The last of them are refused; when the first have left, there is room again."""
    with contextlib.ExitStack() as crowd:
        lines = [crowd.enter_context(prey.dial()) for _ in range(MOST_CONNECTIONS + 20)]
        for line in lines:
            line.send(call(1, "ServerLive"), message(1, b""))
        served = [line.status(1) for line in lines].count(OK)
        assert served <= MOST_CONNECTIONS
    until(prey.serves)


def test_strangers_take_no_places_of_others(prey: Prey) -> None:
    """Health checks whose answers are never taken: known callers are served meanwhile, and each ends in its time."""
    with contextlib.ExitStack() as crowd:
        lines = [crowd.enter_context(prey.dial(window=0)) for _ in range(10)]
        for line in lines:
            line.send(*[call(number, "ServerLive", flags=5) for number in range(1, 2 * STREAMS, 2)])
        assert prey.serves()
        for line in lines:
            line.read_until(lambda line=line: len({each.stream for each in ends(line)}) == STREAMS)
        assert prey.serves()


def test_answers_that_are_not_taken(prey: Prey) -> None:
    """A call's answer and a stream's have the time that a body has. Then the call is dropped; its connection lives."""
    with prey.dial(window=1000) as line:
        for number in range(1, 21, 2):
            name = "ModelInfer" if number < 10 else "ModelStreamInfer"
            line.send(call(number, name, prey.known), message(number, infer("wide", 1400)))
        line.read_until(lambda: {each.stream for each in ends(line)} == set(range(1, 21, 2)))
        line.send(call(21, "ServerLive", flags=5))
        assert line.status(21) == OK


async def hoard(prey: Prey) -> None:
    """Ask for a hundred megabytes on streams, and take nothing of them until they are dropped."""
    before = await asyncio.to_thread(prey.dropped)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{prey.port}") as channel:
        streams = [channel.stream_stream(f"{SERVICE}ModelStreamInfer")(metadata=prey.known) for _ in range(4)]
        for stream in streams:
            # A slow machine may still be writing when the stream is dropped.
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                for _ in range(25):
                    await stream.write(infer("wide", MiB // 4))
        await asyncio.to_thread(until, lambda: prey.dropped() >= before + 4)


async def test_memory_comes_back(prey: Prey) -> None:
    """Twice as much of the same takes no more memory. What is free is kept for reuse, so the bound is wide; what the
    second round moves is twice the bound."""
    attacks: tuple[Callable[[Prey], None], ...] = (
        test_messages_that_are_none,
        test_thousands_of_streams,
        test_streams_that_are_abandoned,
        test_a_flood_of_resets,
        test_floods_of_metadata,
    )
    await hoard(prey)
    before = prey.daemon.rss_bytes()
    for _ in range(2):
        for each in attacks:
            await asyncio.to_thread(each, prey)
        await hoard(prey)
    await asyncio.to_thread(until, lambda: prey.daemon.rss_bytes() < before + 200 * MiB)
