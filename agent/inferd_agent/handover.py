"""The listener `memory+unix:`: callers hand over memory as a file descriptor and get the name of a region for it.

One line of JSON with one descriptor asks, one line answers, then the next may come. A region lives as long as the
connection that brought it. Every descriptor that comes is registered or closed; nobody waits here without a deadline,
but for callers whose memory is held.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import Annotated

import msgspec
from msgspec import Meta

from inferd_agent.errors import answer_for
from inferd_agent.identity import Identity, require
from inferd_agent.memory import Regions
from inferd_agent.sockets import Bound, PeerCredentials, peer_credentials
from inferd_runtime import InferdError, InvalidRequest, Overloaded

log = logging.getLogger(__name__)

_MAX_LINE_BYTES = 4096
# After a failed accept, as when all descriptors are taken.
_PAUSE_S = 1.0


class Offer(msgspec.Struct):
    """What a caller's line says; who sends no token is known by its uid."""

    byte_size: Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
    token: str | None = None


class _Taken(msgspec.Struct):
    name: str
    byte_size: int


class _Refused(msgspec.Struct):
    error: str
    status: int


_OFFER = msgspec.json.Decoder(Offer)


class Handover:
    """Takes memory on any number of listeners. Made and used on the event loop.

    `wait_s`: how long a line may take, the first one from the connection's begin on.
    """

    def __init__(self, regions: Regions, identity: Identity, *, wait_s: float, max_connections: int) -> None:
        self._regions = regions
        self._identity = identity
        self._wait_s = wait_s
        self._max_connections = max_connections
        self._loop = asyncio.get_running_loop()
        self._bound: list[Bound] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._serving: set[asyncio.Task[None]] = set()

    def listen(self, bound: Bound) -> None:
        """Accept connections on a listener; a stop closes it."""
        self._bound.append(bound)
        self._accepting += [self._loop.create_task(self._accept(sock)) for sock in bound.sockets]

    async def stop_accepting(self) -> None:
        """Close the listeners; what was handed over stays."""
        tasks, self._accepting = self._accepting, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        bounds, self._bound = self._bound, []
        for bound in bounds:
            await asyncio.to_thread(bound.close)  # it removes a path

    async def close(self) -> None:
        """End every connection and give all memory back; idempotent."""
        await self.stop_accepting()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(listening)
            except OSError as error:
                log.warning("cannot take a connection for memory: %s", error)
                await asyncio.sleep(_PAUSE_S)
                continue
            if len(self._serving) >= self._max_connections:
                _refuse(connection, Overloaded(f"all {self._max_connections} connections for memory are taken"))
                connection.close()
                continue
            task = self._loop.create_task(self._serve(connection))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, connection: socket.socket) -> None:
        """One connection, from the first line until it ends."""
        brought: list[tuple[str, str]] = []
        try:
            peer = peer_credentials(connection)
            while (asked := await self._receive(connection, is_patient=bool(brought))) is not None:
                _send(connection, self._take(*asked, peer, brought))
        except InferdError as error:
            _refuse(connection, error)
        except ConnectionError:
            pass
        except Exception:
            log.exception("a connection for memory failed")
        finally:
            connection.close()
            for owner, name in brought:
                self._regions.unregister(owner, name)

    def _take(
        self, line: bytes, fd: int, peer: PeerCredentials | None, brought: list[tuple[str, str]]
    ) -> _Taken | _Refused:
        """The answer to one offer. The descriptor is closed afterwards; a region has one of its own."""
        try:
            offer = _read_offer(line)
            caller = self._identity.authenticate(f"Bearer {offer.token}" if offer.token else None, peer)
            require(caller, "infer")
            uid = peer.uid if peer is not None else None
            name = self._regions.register_fd(caller.owner, os.dup(fd), offer.byte_size, uid=uid)
        except InferdError as error:
            return _refusal(error)
        finally:
            os.close(fd)
        brought.append((caller.owner, name))
        return _Taken(name, offer.byte_size)

    async def _receive(self, connection: socket.socket, *, is_patient: bool) -> tuple[bytes, int] | None:
        """One line with its descriptor, which is the caller's to close; None at the end. Raises InvalidRequest."""
        line = b""
        fds: list[int] = []
        try:
            async with asyncio.timeout(None if is_patient else self._wait_s) as limit:
                while not line.endswith(b"\n"):
                    await self._readable(connection)
                    if is_patient and not line:
                        limit.reschedule(self._loop.time() + self._wait_s)
                    try:
                        data = _receive_some(connection, fds)
                    except BlockingIOError:
                        continue
                    if not data:
                        return None
                    line += data
                    if len(line) > _MAX_LINE_BYTES or b"\n" in line[:-1]:
                        raise InvalidRequest(f"expected one line of at most {_MAX_LINE_BYTES} bytes, then its answer")
            if not fds:
                raise InvalidRequest("no file descriptor came with the line: send one by SCM_RIGHTS")
            return line, fds.pop()
        except TimeoutError:
            raise InvalidRequest(f"no whole line came within {self._wait_s:g} s") from None
        finally:
            for fd in fds:
                os.close(fd)

    async def _readable(self, connection: socket.socket) -> None:
        readable = asyncio.Event()
        self._loop.add_reader(connection, readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(connection)


def _receive_some(connection: socket.socket, fds: list[int]) -> bytes:
    """What is there; descriptors go to `fds`. Raises BlockingIOError, InvalidRequest."""
    # The kernel closes what there is no room for.
    data, came, flags, _ = socket.recv_fds(connection, _MAX_LINE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    fds += came
    if flags & socket.MSG_CTRUNC or len(fds) > 1:
        raise InvalidRequest("several file descriptors came: send one with each line")
    return data


def _read_offer(line: bytes) -> Offer:
    try:
        return _OFFER.decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f'expected {{"byte_size": N, "token": "ifd_..."}}: {error}') from None


def _refusal(error: InferdError) -> _Refused:
    return _Refused(str(error), answer_for(error).http)


def _refuse(connection: socket.socket, error: InferdError) -> None:
    with contextlib.suppress(ConnectionError):
        _send(connection, _refusal(error))


def _send(connection: socket.socket, answer: _Taken | _Refused) -> None:
    """One line; whoever lets so many answers lie that none fits any more is cut off."""
    try:
        connection.send(msgspec.json.encode(answer) + b"\n")
    except BlockingIOError:
        raise ConnectionAbortedError("the caller does not read its answers") from None
