"""Memory handed over: what is taken, what is refused, and that no descriptor and no region is left behind."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest

from inferd_agent.config import Listener, SharedMemory
from inferd_agent.handover import Handover
from inferd_agent.identity import Identity, TokenStore
from inferd_agent.memory import Regions
from inferd_agent.sockets import PeerCredentials, bind

NBYTES = 4096
LIMITS = SharedMemory(max_bytes=8 * NBYTES, max_regions=6)


class Door:
    """A handover that listens at `path`, with what stands behind it."""

    handover: Handover

    def __init__(self, folder: Path) -> None:
        self.path = folder / "m.sock"
        self.tokens = TokenStore(folder / "tokens.json")
        self.identity = Identity(self.tokens.path, (), own_uid=os.geteuid())
        self.regions = Regions(LIMITS)
        (self._bound,) = bind([Listener("unix", path=str(self.path), tls=False, memory=True)], mode=0o600)

    @classmethod
    async def open(cls, folder: Path) -> Self:
        """Listen."""
        door = await asyncio.to_thread(cls, folder)
        door.handover = Handover(door.regions, door.identity, wait_s=10, max_connections=3)
        door.handover.listen(door._bound)
        return door

    def token(self, name: str, scope: str) -> str:
        """A new one, known at once."""
        made = self.tokens.create(name, [scope])[0]
        self.identity.reload()
        return made

    async def connect(self) -> Caller:
        """A new connection."""
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, str(self.path))
        return Caller(connection)

    async def close(self) -> None:
        """End all."""
        await self.handover.close()
        self.regions.close()


class Caller:
    """A caller's end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._loop = asyncio.get_running_loop()

    async def offer(self, line: Any, *fds: int) -> Any:
        """Send a line (bytes as they are) with descriptors, and read the answer's line."""
        self.send(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n", *fds)
        return await self.answer()

    def send(self, data: bytes, *fds: int) -> None:
        """Send without waiting."""
        socket.send_fds(self.connection, [data], fds)

    async def answer(self) -> Any:
        """The next line; None at the end."""
        data = b""
        while not data.endswith(b"\n"):
            async with asyncio.timeout(10):
                piece = await self._loop.sock_recv(self.connection, 65536)
            if not piece:
                return None
            data += piece
        return json.loads(data)

    async def has_ended(self) -> bool:
        """Whether the other side ends the connection."""
        with suppress(ConnectionError):
            return await self.answer() is None
        return True

    def close(self) -> None:
        """Leave."""
        self.connection.close()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    before = descriptors()
    found = await Door.open(tmp_path)
    yield found
    await found.close()
    assert descriptors() == before


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextmanager
def memfd(nbytes: int = NBYTES, seals: int = fcntl.F_SEAL_SHRINK) -> Any:
    """A descriptor to hand over."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.truncate(fd, nbytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        yield fd
    finally:
        os.close(fd)


async def until(condition: Callable[[], bool]) -> None:
    """Let the other side come to it."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_memory_lives_as_long_as_its_connection(door: Door) -> None:
    """Each offer gets a name that nobody guesses; another user's table has none of it; the end takes all away."""
    caller, other = await door.connect(), await door.connect()
    owner = door.identity.authenticate(None, peer()).owner
    with memfd() as fd:
        first = await caller.offer({"byte_size": NBYTES}, fd)
        second = await caller.offer({"byte_size": 100}, fd)
        third = await other.offer({"byte_size": 1}, fd)
    assert first == {"name": first["name"], "byte_size": NBYTES}
    assert len({each["name"] for each in (first, second, third)}) == 3
    assert all(len(each["name"]) > 20 for each in (first, second, third))
    assert door.regions.status(owner, second["name"])[0].nbytes == 100
    caller.close()
    await until(lambda: len(door.regions) == 1)
    assert door.regions.status(owner, third["name"])
    other.close()
    await until(lambda: len(door.regions) == 0)


async def test_a_token_decides_whose_it_is(door: Door) -> None:
    """As at every other door: a token before the uid, and only one that may infer."""
    token, reader = [await asyncio.to_thread(door.token, f"may-{scope}", scope) for scope in ("infer", "read")]
    caller = await door.connect()
    with memfd() as fd:
        taken = await caller.offer({"byte_size": NBYTES, "token": token}, fd)
        assert door.regions.status(door.identity.authenticate(f"Bearer {token}", None).owner, taken["name"])
        refused = await caller.offer({"byte_size": NBYTES, "token": reader}, fd)
        assert refused == {"error": "may-read lacks the scope 'infer'", "status": 403}
        refused = await caller.offer({"byte_size": NBYTES, "token": "ifd_no_no"}, fd)
        assert refused["status"] == 401
    assert len(door.regions) == 1
    caller.close()


async def test_what_regions_refuse_is_told_and_the_connection_goes_on(door: Door) -> None:
    """No seal, no memfd, too large, too many: each with its status, and the next offer is heard."""
    caller = await door.connect()
    with memfd() as fd, memfd(seals=0) as loose, memfd(5 * NBYTES) as large:
        for given, nbytes, status, text in (
            (loose, NBYTES, 400, "F_SEAL_SHRINK"),
            (caller.connection.fileno(), NBYTES, 400, "no memfd"),
            (fd, NBYTES + 1, 400, "not in it"),
            (large, 5 * NBYTES, 400, "at most 16384"),
        ):
            refused = await caller.offer({"byte_size": nbytes}, given)
            assert refused["status"] == status
            assert text in refused["error"]
        for _ in range(3):
            assert "name" in await caller.offer({"byte_size": 1}, fd)
        assert (await caller.offer({"byte_size": 1}, fd))["status"] == 429
    caller.close()


MALFORMED = {
    "no JSON": (b"hello\n", 1, "expected {"),
    "no object": (b"[1]\n", 1, "expected {"),
    "not UTF-8": (b'{"byte_size":1,"token":"\xff"}\n', 1, "expected {"),
    "deep": (b"[" * 4000 + b"\n", 1, "expected {"),
    "nothing": (b"\n", 1, "expected {"),
    "zero": (b'{"byte_size":0}\n', 1, "expected {"),
    "too large a number": (b'{"byte_size":9223372036854775808}\n', 1, "expected {"),
    "wrong type": (b'{"byte_size":"1"}\n', 1, "expected {"),
    "no descriptor": (b'{"byte_size":1}\n', 0, "no file descriptor came"),
    "two descriptors": (b'{"byte_size":1}\n', 2, "several file descriptors came"),
    "many descriptors": (b'{"byte_size":1}\n', 200, "several file descriptors came"),
    "two lines at once": (b'{"byte_size":1}\n{"byte_size":1}\n', 1, "one line of at most"),
    "endless": (b"x" * 5000, 1, "one line of at most"),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_whatever_comes_is_answered(door: Door, case: str) -> None:
    """A line that cannot be read is an error in words, never with the token in it, and leaves no region."""
    data, count, text = MALFORMED[case]
    caller = await door.connect()
    with memfd() as fd:
        answer = await caller.offer(data, *[fd] * count)
    assert answer["status"] == 400
    assert text in answer["error"]
    caller.close()
    assert len(door.regions) == 0


async def test_a_line_may_come_in_pieces(door: Door) -> None:
    """Byte by byte, the descriptor with any of them, but not with two."""
    caller = await door.connect()
    with memfd() as fd:
        for at, octet in enumerate(b'{"byte_size":1}\n'):
            caller.send(bytes([octet]), *([fd] if at == 7 else []))
        assert (await caller.answer())["byte_size"] == 1
        caller.send(b'{"byte', fd)
        answer = await caller.offer(b'_size":1}\n', fd)
        assert "several file descriptors came" in answer["error"]
    assert await caller.has_ended()
    caller.close()
    await until(lambda: len(door.regions) == 0)


async def test_the_slow_are_cut_off_and_the_quiet_are_not(tmp_path: Path) -> None:
    """Who brings nothing, or half a line, has so long; who has brought memory may be silent for ever."""
    door = await Door.open(tmp_path)
    holder = await door.connect()
    with memfd() as fd:
        assert "name" in await holder.offer({"byte_size": 1}, fd)
        door.handover._wait_s = 0.2
        idle, half = [await door.connect() for _ in range(2)]
        with suppress(ConnectionError):  # on a busy machine it is cut off before
            half.send(b"{", fd)
    for slow in (idle, half):
        assert (await slow.answer())["error"] == "no whole line came within 0.2 s"
        assert await slow.has_ended()
        slow.close()
    assert len(door.regions) == 1
    holder.send(b"{")  # which begins a line, and so its time
    assert "no whole line" in (await holder.answer())["error"]
    await until(lambda: len(door.regions) == 0)
    holder.close()
    await door.close()


async def test_there_is_an_end_to_connections(door: Door) -> None:
    """Over the limit a caller is told so; one that leaves makes room."""
    callers = [await door.connect() for _ in range(3)]
    with memfd() as fd:
        for caller in callers:
            assert "name" in await caller.offer({"byte_size": 1}, fd)
    late = await door.connect()
    answer = await late.answer()
    assert (answer["status"], answer["error"]) == (429, "all 3 connections for memory are taken")
    assert await late.has_ended()
    late.close()
    callers.pop().close()
    await until(lambda: len(door.regions) == 2)
    fresh = await door.connect()
    with memfd() as fd:
        assert "name" in await fresh.offer({"byte_size": 1}, fd)
    for caller in (*callers, fresh):
        caller.close()


async def test_a_stop_takes_no_more_and_then_gives_all_back(door: Door) -> None:
    """What was handed over stays until requests are done; the path is gone first, the connections last."""
    caller = await door.connect()
    with memfd() as fd:
        assert "name" in await caller.offer({"byte_size": 1}, fd)
        await door.handover.stop_accepting()
        assert not door.path.exists()
        assert "name" in await caller.offer({"byte_size": 1}, fd)
    await door.handover.close()
    assert len(door.regions) == 0
    assert await caller.has_ended()
    caller.close()


async def test_who_does_not_read_is_cut_off(door: Door) -> None:
    """Answers pile up in the socket, not in the daemon."""
    caller = await door.connect()
    refused = json.dumps({"byte_size": 1, "token": "ifd_no_no"}).encode() + b"\n"
    with memfd() as fd, suppress(BrokenPipeError, ConnectionResetError):
        async with asyncio.timeout(30):
            while True:
                with suppress(BlockingIOError):
                    caller.send(refused, fd)
                await asyncio.sleep(0)
    caller.close()


def peer() -> PeerCredentials:
    """This process, as the other side sees it."""
    return PeerCredentials(os.getpid(), os.geteuid(), os.getegid())
