"""A connection that breaks as it is made closes no descriptor but its own, whichever event loop it was for."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp.connector
import pytest
import uvloop

from inferd import errors
from inferd.address import Address, Verifier
from inferd.calls import server_metadata
from inferd.channel import Channel, DeviceConnector, TCPConnector, UnixTLSConnector
from inferd.retry import Deadline
from tests.inferd.client.server import tcp_socket, unix_socket

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets


class Resetting:
    """A peer that takes connections and resets them, and the trust in it."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    def reset(self) -> None:
        """End the connection that comes next."""
        taken, _ = self._listener.accept()
        with taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)

    def context(self, within_s: float = 0.0) -> ssl.SSLContext:
        """Nobody is trusted."""
        return ssl.create_default_context()

    def refusal(self, address: Address, error: ssl.SSLError) -> errors.TLSError:
        """It has no certificate to be refused."""
        raise AssertionError(error)


@contextmanager
def many_files() -> Iterator[None]:
    """Files that take the numbers which have become free; all of them must be open in the end."""
    numbers = [os.open(os.devnull, os.O_RDONLY) for _ in range(64)]
    yield
    for number in numbers:
        os.close(number)


def until_reset(monkeypatch: pytest.MonkeyPatch, peer: Resetting) -> None:
    """A connection over TCP is reset before the loop gets it."""
    connect = aiohttp.connector.aiohappyeyeballs.start_connection

    async def and_reset(*args: Any, **options: Any) -> socket.socket:
        sock = await connect(*args, **options)
        await asyncio.to_thread(peer.reset)
        return sock

    monkeypatch.setattr(aiohttp.connector.aiohappyeyeballs, "start_connection", and_reset)


def fails(loop: str, channel: Channel) -> BaseException:
    """The error of a call; while it is held, so is what was left behind."""

    async def call() -> None:
        try:
            await channel.exchange(server_metadata(), Deadline(20))
        finally:
            await channel.close()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner, pytest.raises(errors.ConnectionFailed) as caught:
        runner.run(call())
    return caught.value


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "make", [TCPConnector, lambda: DeviceConnector(lambda: ["127.0.0.1"], connect_s=20)], ids=["plain", "device"]
)
def test_over_tcp(loop: str, make: Callable[[], TCPConnector], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is closed when what is left of the connection is collected."""
    with tcp_socket() as listener:
        listener.listen()
        peer = Resetting(listener)
        until_reset(monkeypatch, peer)
        port = listener.getsockname()[1]
        address = Address(f"https://127.0.0.1:{port}", None, "127.0.0.1", port, "localhost")
        _closes_nothing_else(loop, Channel(address, peer, None, make))


@pytest.mark.parametrize("loop", LOOPS)
def test_over_a_unix_socket(loop: str, tmp_path: Path) -> None:
    """As over TCP."""
    with unix_socket(tmp_path / "s") as listener:
        listener.listen()

        class Late(Resetting):
            def context(self, within_s: float = 0.0) -> ssl.SSLContext:
                self.reset()
                return super().context()

        peer: Verifier = Late(listener)
        address = Address(f"unix:{tmp_path}/s", str(tmp_path / "s"), "localhost", 0, "localhost")
        _closes_nothing_else(
            loop,
            Channel(address, peer, None, lambda: UnixTLSConnector(str(tmp_path / "s"), peer, "localhost", limit=1)),
        )


def _closes_nothing_else(loop: str, channel: Channel) -> None:
    error: BaseException | None = fails(loop, channel)
    with many_files():
        del error
        gc.collect()
