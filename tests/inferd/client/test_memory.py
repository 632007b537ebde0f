"""Memory that a client shares, against a peer that takes what comes and answers as told."""

from __future__ import annotations

import fcntl
import gc
import json
import mmap
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd import calls, errors
from inferd.calls import Reply
from inferd.memory import Memories, Memory, share
from inferd.protocol import RegionRef, decode_request
from inferd.retry import Deadline
from tests.inferd.client.both import KINDS, Both
from tests.inferd.client.conftest import Site
from tests.inferd.client.server import TOKEN, unix_socket

TAKEN = b'{"name":"r1","byte_size":4096}\n'
both_kinds = pytest.mark.parametrize("kind", KINDS)


class Peer:
    """One end of a handover: what was offered, the memory as the other side sees it, and whether the client left."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.offer: Any = None
        self.fd = -1
        self.has_ended = threading.Event()

    def serve(self, listener: socket.socket, answer: bytes) -> None:
        """Take one offer; an empty answer closes, None was given to stay silent."""
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            line, fds, _, _ = socket.recv_fds(connection, 4096, 2)
            self.offer, self.fd = json.loads(line), fds[0]
            connection.sendall(answer)
            if answer != b"":
                self.has_ended.set() if connection.recv(1) == b"" else None

    def seen(self) -> mmap.mmap:
        """The memory, mapped once more."""
        return mmap.mmap(self.fd, 0)


@contextmanager
def peer(path: Path, answer: bytes = TAKEN) -> Iterator[Peer]:
    """A peer at a path."""
    found, listener = Peer(path), unix_socket(path)
    listener.listen()
    thread = threading.Thread(target=found.serve, args=(listener, answer), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        listener.close()
        thread.join(10)
        if found.fd >= 0:
            os.close(found.fd)


@pytest.fixture
def memories() -> Memories:
    return Memories()


@pytest.fixture
def taker(tmp_path: Path) -> Iterator[Peer]:
    with peer(tmp_path / "m") as found:
        yield found


@pytest.fixture
def memory(taker: Peer, memories: Memories) -> Iterator[Memory]:
    """A page of it."""
    with share(taker.path, TOKEN, 4096, memories, Deadline(10)) as found:
        yield found


def test_an_array_is_where_the_daemon_is_told(taker: Peer, memory: Memory, memories: Memories) -> None:
    """What is written into an array stands at its place in the memory that was handed over, and in views of it, too."""
    first, second = memory.empty(3, np.uint8), memory.empty((2, 4), np.float32)
    second[:] = np.arange(8).reshape(2, 4)
    assert taker.offer == {"byte_size": 4096, "token": TOKEN}
    assert memories.place(first) == RegionRef("r1", 0, 3)
    place = memories.place(second)
    assert place == RegionRef("r1", 64, 32)
    with taker.seen() as seen:
        assert seen[place.offset : place.offset + place.nbytes] == second.tobytes()
    assert memories.place(second[1:]) == RegionRef("r1", 80, 16)
    assert memories.place(np.asarray(memoryview(second))) == place
    assert memory.free_bytes == 4096 - 128


def test_what_does_not_lie_there_in_one_piece_has_no_place(memory: Memory, memories: Memories) -> None:
    """Arrays from elsewhere, with gaps, of text or of nothing are sent like any other."""
    array = memory.empty((4, 4), np.float32)
    others = [array.copy(), array[:, ::2], array.T, array[:0], np.array([b"x"], object)]
    assert [memories.place(other) for other in others] == [None] * 5


def test_it_is_filled_up_and_no_further(memory: Memory) -> None:
    """The last byte can be used; what does not fit is refused with both sizes, and so is what no array can be."""
    memory.empty(4095, np.uint8)
    memory.empty((), np.bool_) if memory.free_bytes else None
    with pytest.raises(errors.InvalidRequest, match="4 bytes do not fit, 0 of 4096 are free"):
        memory.empty(1, np.float32)
    for shape, dtype in (((-1, 4), np.float32), (4, object), (4, np.complex64), (1 << 62, np.uint8)):
        with pytest.raises(errors.InvalidRequest):
            memory.empty(shape, dtype)
    assert memory.empty((0, 3), np.int64).size == 0


def test_closed_memory_raises_and_its_arrays_stay(taker: Peer, memory: Memory, memories: Memories) -> None:
    """No new arrays, no places, and the daemon is told; old arrays are arrays still."""
    array = memory.empty(4, np.int64)
    array[:] = 7
    memory.close()
    memory.close()
    assert taker.has_ended.wait(10)
    array += 1
    assert array.tolist() == [8] * 4
    with pytest.raises(errors.InvalidRequest, match="was closed"):
        memory.empty(1, np.int8)
    with pytest.raises(errors.InvalidRequest, match="was closed"):
        memories.place(array)
    with pytest.raises(errors.InvalidRequest, match="was closed"):
        _infer({"x": array}, None, memories)
    assert "closed" in repr(memory)


def test_memory_that_nobody_holds_is_let_go(taker: Peer, memories: Memories) -> None:
    """The connection ends with the memory, and the mapping with its last array: nothing is left behind."""
    memory = share(taker.path, None, 4096, memories, Deadline(10))
    array = memory.empty(4, np.int64)
    del memory
    gc.collect()
    assert taker.has_ended.wait(10)
    assert taker.offer == {"byte_size": 4096}
    before = _mapped()
    array[:] = 1
    del array
    gc.collect()
    assert _mapped() == before - 1
    assert not memories._regions


def test_it_cannot_shrink(taker: Peer, memory: Memory) -> None:
    """Neither side can take memory away that the other may read."""
    assert fcntl.fcntl(taker.fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    with pytest.raises(PermissionError):
        os.ftruncate(taker.fd, 0)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b'{"error":"no right","status":403}\n', errors.Forbidden),
        (b'{"error":"too much","status":429}\n', errors.Overloaded),
        (b'{"error":"no"}\n', errors.InvalidRequest),
        (b"{}\n", errors.InvalidRequest),
        (b"<html>\n", errors.BadResponse),
        (b"\xff\n", errors.BadResponse),
        (b"", errors.ConnectionFailed),
    ],
)
def test_a_refusal_is_an_error_of_ours(
    tmp_path: Path, memories: Memories, answer: bytes, error: type[Exception]
) -> None:
    """Each has its class, and nothing stays open or mapped."""
    gc.collect()  # what other tests left is not to go meanwhile
    before = _mapped(), _open_files()
    with peer(tmp_path / "m", answer) as found, pytest.raises(error):
        share(found.path, TOKEN, 4096, memories, Deadline(10))
    gc.collect()
    assert (_mapped(), _open_files()) == before
    assert not memories._regions


def test_nobody_there_and_nobody_who_answers(tmp_path: Path, memories: Memories) -> None:
    """A socket that is missing is told by its path; a silent one costs no more than the deadline."""
    with pytest.raises(errors.ConnectionFailed, match=f"{tmp_path}/none: No such file"):
        share(f"{tmp_path}/none", None, 4096, memories, Deadline(10))
    with unix_socket(tmp_path / "m") as listener:
        listener.listen()
        with pytest.raises(errors.DeadlineExceeded):
            share(f"{tmp_path}/m", None, 4096, memories, Deadline(0.1))


@pytest.mark.parametrize("nbytes", [0, -1, 1 << 70])
def test_sizes_that_cannot_be(memories: Memories, nbytes: int) -> None:
    """No memory, or more than there is, is refused before anybody is asked."""
    with pytest.raises(errors.InvalidRequest, match=str(nbytes)):
        share("/nowhere", None, nbytes, memories, Deadline(1))


@both_kinds
async def test_a_daemon_elsewhere_or_without_a_socket(kind: str, site: Site) -> None:
    """Memory cannot be shared over a network, nor with a daemon that takes none: both are told at once."""
    async with Both(kind, "https://198.51.100.7:8470", token=TOKEN) as client:
        with pytest.raises(errors.Unsupported, match="one machine only"):
            await client.call("share", 4096)
    async with Both(kind, site.unix, token=TOKEN) as client:
        with pytest.raises(errors.Unsupported, match="no /inferd/v1/memory"):
            await client.call("share", 4096)
    assert site.server.requests == [("GET", "/inferd/v1/memory")]


def test_what_is_sent_are_places(memory: Memory, memories: Memories) -> None:
    """A request names region, offset and size of what lies in memory; the rest travels as always."""
    x, y = memory.empty((2, 4), np.float32), memory.empty(2, np.int64)
    call = _infer({"x": x, "z": np.ones(3, np.int8)}, {"y": y, "scores": None}, memories)
    assert call.encode is not None
    length, buffers = call.encode(5.0)
    asked = decode_request(b"".join(buffers), length)
    assert list(asked.inputs) == ["z"]
    [reference] = asked.references
    assert (reference.name, reference.shape, reference.place) == ("x", (2, 4), memories.place(x))
    assert [(each.name, each.place) for each in asked.outputs] == [("y", memories.place(y)), ("scores", None)]


def test_an_output_is_the_array_given_for_it(memory: Memory, memories: Memories) -> None:
    """It has the shape of the answer; room may be left. An answer of another dtype is told."""
    y = memory.empty(8, np.int64)
    y[:] = range(8)
    call = _infer({}, {"y": y}, memories)
    result = call.read(_answer("INT64", [2, 3]))
    assert result["y"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert np.shares_memory(result["y"], y)
    with pytest.raises(errors.InvalidRequest, match="output 'y' is float32, the array given for it int64"):
        call.read(_answer("FP32", [2]))
    with pytest.raises(errors.BadResponse, match="9 elements, room was for 8"):
        call.read(_answer("INT64", [9]))


def test_outputs_go_into_shared_memory_only(memory: Memory, memories: Memories) -> None:
    """Any other array would stay as it is, which nobody wants."""
    closed = memory.empty(4, np.float32)
    closed.flags.writeable = False
    for array in (np.zeros(4), closed, memory.empty((4, 4), np.int8)[:, ::2], [1, 2]):
        with pytest.raises(errors.InvalidRequest, match="output 'y': expected None, or a writable array"):
            _infer({}, {"y": array}, memories)


def _infer(inputs: dict[str, Any], outputs: Any, memories: Memories) -> calls.Call[calls.Result]:
    return calls.infer(
        "m", inputs, outputs=outputs, version=None, classification=None, parameters=None, request_id=None,
        timing=False, memories=memories,
    )  # fmt: skip


def _answer(datatype: str, shape: list[int]) -> Reply:
    output = {"name": "y", "datatype": datatype, "shape": shape}
    return Reply(200, {}, json.dumps({"model_name": "m", "model_version": "1", "outputs": [output]}).encode())


def _mapped() -> int:
    """How many memfds of ours this process maps."""
    return Path("/proc/self/maps").read_text().count("/memfd:inferd")


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
