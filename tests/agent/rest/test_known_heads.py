"""Requests with heads that their connection sent before: each is answered as if it came first, whatever the pieces."""

from __future__ import annotations

import itertools
import select
import socket
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.protocol import decode_response
from tests import onnx_models
from tests.agent.rest.serving import ROW, Reply, Serving, infer_bytes, is_closed, read_reply, request

NOWHERE = request("POST", "/nowhere", b"12")
LIVE = request("GET", "/v2/health/live")
INFER = infer_bytes("mlp", ROW)
SAME_HEAD_NO_JSON = INFER.replace(b'{"inputs"', b'["inputs"')


@dataclass(frozen=True)
class Asked:
    """A request and its right answer; `row` is what an inference was asked about."""

    data: bytes
    status: int
    row: np.ndarray | None = None


def row(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 64)).astype(np.float32)


asked = st.one_of(
    st.integers(0, 3).map(lambda seed: Asked(infer_bytes("mlp", row(seed)), 200, row(seed))),
    st.sampled_from([Asked(SAME_HEAD_NO_JSON, 400), Asked(NOWHERE, 404), Asked(LIVE, 200)]),
)


def check(reply: Reply, one: Asked) -> None:
    assert reply.status == one.status
    if one.row is not None:
        length = int(reply.headers["inference-header-content-length"])
        told = decode_response(reply.body, length).outputs["probabilities"]
        assert np.allclose(told, onnx_models.mlp_reference(one.row), atol=0.02)


def answered(connection: socket.socket, sent: list[Asked]) -> None:
    """Every request of one send is answered, in order."""
    buffer = b""
    for one in sent:
        while True:
            try:
                reply, buffer = take(buffer)
                break
            except LookupError:
                data = connection.recv(1 << 16)
                assert data, "closed early"
                buffer += data
        check(reply, one)
    assert not buffer


def take(buffer: bytes) -> tuple[Reply, bytes]:
    """The first whole response in `buffer` and what follows; LookupError where there is none."""
    head, end, rest = buffer.partition(b"\r\n\r\n")
    if not end:
        raise LookupError
    status, *fields = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    length = int(headers["content-length"])
    if len(rest) < length:
        raise LookupError
    return Reply(int(status.split()[1]), headers, rest[:length]), rest[length:]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.lists(asked, min_size=1, max_size=3), st.lists(st.floats(0, 1), max_size=2)), max_size=8))
def test_any_requests_in_any_pieces(served: Serving, rounds: list[tuple[list[Asked], list[float]]]) -> None:
    """Alone or pipelined, whole or cut anywhere, after whatever else: each request has its own answer."""
    with served.connected() as connection:
        for sent, cuts in rounds:
            data = b"".join(one.data for one in sent)
            at = [0, *sorted(int(cut * len(data)) for cut in cuts), len(data)]
            for begin, end in itertools.pairwise(at):
                connection.sendall(data[begin:end])
            answered(connection, sent)


def test_a_token_that_is_revoked_between_two_equal_heads(served: Serving) -> None:
    """Who is calling is asked for every request, however well its head is known."""
    token, _ = served.tokens.create("brief", ("infer",))
    served.identity.reload()
    data = infer_bytes("mlp", ROW, {"Authorization": f"Bearer {token}"})
    with served.connected(tcp=True) as connection:
        for _ in range(3):
            connection.sendall(data)
            assert read_reply(connection).status == 200
        served.tokens.revoke("brief")
        served.identity.reload()
        connection.sendall(data)
        assert read_reply(connection).status == 401


def test_a_known_head_on_a_connection_that_closes(served: Serving) -> None:
    """`Connection: close` is heeded each time it is said, also with a head that differs in nothing else."""
    closing = INFER.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    with served.connected() as connection:
        for data in (INFER, INFER, closing):
            connection.sendall(data)
            assert read_reply(connection).status == 200
        assert is_closed(connection)


@pytest.mark.usefixtures("patience")
def test_a_known_head_inside_a_body_is_a_body(served: Serving) -> None:
    """What a body says is not taken for a request, even where it is one to the byte and comes on its own."""
    holder = request("POST", "/nowhere", b"", {"Content-Length": str(len(INFER))})
    with served.connected() as connection:
        for data in (INFER, INFER):
            connection.sendall(data)
            assert read_reply(connection).status == 200
        connection.sendall(holder)
        assert read_reply(connection).status == 404  # told before the body comes
        connection.sendall(INFER)
        assert select.select([connection], [], [], 0.3)[0] == []
        connection.sendall(LIVE)
        assert read_reply(connection).body == b'{"live":true}'
        connection.sendall(INFER)
        assert read_reply(connection).status == 200
