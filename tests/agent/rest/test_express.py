"""The express way: small inferences that are answered without a task, for callers that want no encoding."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable

import numpy as np
import pytest

from inferd_agent.rest import RestApp
from inferd_agent.rest.call import Call
from inferd_agent.rest.connection import Connection, Server
from inferd_agent.rest.routes import Target
from tests.agent.rest.serving import ROW, Serving, infer_bytes, read_reply, request

LIVE = request("GET", "/v2/health/live", headers={"X-Request-Id": "live"})


def infer(model: str, name: str) -> bytes:
    row = np.ones((1, 512), np.float32) if model == "slow" else ROW
    return infer_bytes(model, row, {"X-Request-Id": name})


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the requests that went the express way."""
    ids: list[str] = []
    begin = RestApp.begin_express

    def noted(app: RestApp, call: Call, target: Target) -> None:
        ids.append(call.message.headers.get("X-Request-Id", ""))
        begin(app, call, target)

    monkeypatch.setattr(RestApp, "begin_express", noted)
    return ids


class Wire(asyncio.Transport):
    """A transport that does nothing but call `wrote` with the head of each answer."""

    def __init__(self, peer: socket.socket, wrote: Callable[[str], None]) -> None:
        super().__init__({"socket": peer})
        self._wrote = wrote

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._wrote(bytes(data).partition(b"\r\n\r\n")[0].decode())

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """There is nothing to close."""


async def converse(server: Server, first: bytes, then: list[bytes], replies: int) -> list[str]:
    """The names of the answers, in order, where all of `then` comes as the first answer is written."""
    told: list[str] = []
    loop = asyncio.get_running_loop()
    is_told = asyncio.Event()

    def wrote(head: str) -> None:
        assert head.startswith("HTTP/1.1 200 ")
        told.append(head.partition("X-Request-Id: ")[2].partition("\r\n")[0])
        while then:
            loop.call_soon(connection.data_received, then.pop(0))
        if len(told) == replies:
            is_told.set()

    connection: Connection = server()
    here, there = socket.socketpair()
    with here, there:
        connection.connection_made(Wire(here, wrote))
        connection.data_received(first)
        await asyncio.wait_for(is_told.wait(), 20)
        connection.connection_lost(None)
    return told


@pytest.mark.parametrize(("accepted", "is_short"), [("identity", True), ("gzip", False)])
def test_who_wants_no_encoding_is_served_without_a_task(
    served: Serving, accepted: str, is_short: bool, taken: list[str]
) -> None:
    """Our own clients, and others that say identity, get the short way; what may be compressed goes the long one."""
    asked = infer_bytes("mlp", ROW, {"Accept-Encoding": accepted, "X-Request-Id": "a"})
    with served.connected() as connection:
        for _ in range(3):  # the short way is for paths that are known
            connection.sendall(asked)
            assert read_reply(connection).status == 200
    assert len(taken) >= 2 if is_short else not taken


@pytest.mark.parametrize("model", ["mlp", "slow"])
@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_who_asks_again_at_once(served: Serving, taken: list[str], model: str, pieces: int) -> None:
    """A request that comes before aiohttp's task sleeps again goes the short way too, and what follows it waits."""
    served.ask(infer(model, "0"))
    second = infer(model, "2")
    cuts = [round(len(second) * at / pieces) for at in range(pieces + 1)]
    then = [second[start:end] for start, end in itertools.pairwise(cuts)]
    told = served.run(converse(served.app._server, infer("mlp", "1"), [*then, LIVE, infer("mlp", "4")], 4))
    assert told == ["1", "2", "live", "4"]
    assert "2" in taken


def test_a_pipeline_that_comes_at_once_is_answered_in_order(served: Serving, taken: list[str]) -> None:
    """Two requests in one piece are no case for the short way."""
    then = [infer("slow", "2") + infer("mlp", "3"), infer("mlp", "4")]
    assert served.run(converse(served.app._server, infer("mlp", "1"), then, 4)) == ["1", "2", "3", "4"]


def test_a_connection_that_is_ended_twice_is_forgotten(served: Serving) -> None:
    """A stop that meets a connection which is being closed does not wait for it for ever."""

    async def end_twice() -> None:
        server, counters = served.app._server, served.app.counters
        before = counters.connections
        here, there = socket.socketpair()
        with here, there:
            connection = server()
            connection.connection_made(Wire(here, lambda _: None))
            assert (connection in server.open, counters.connections) == (True, before + 1)
            connection.refuse(408, "too slow")
            connection.force_close()
            connection.connection_lost(None)
            async with asyncio.timeout(20):
                while connection in server.open:  # until its task has ended
                    await asyncio.sleep(0)
            assert counters.connections == before

    served.run(end_twice())
