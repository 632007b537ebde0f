"""Layouts of messages: what is known of one holds for the next, or is not used."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as triton

from inferd.protocol import ProtocolError
from inferd.protocol.requests import DEFAULT_LIMITS
from inferd_agent.grpc.layouts import Layouts, Parts, take_apart


def message(request_id: str = "", *raw: bytes, model: str = "m") -> bytes:
    request = triton.ModelInferRequest(model_name=model, id=request_id, raw_input_contents=raw)
    for number, each in enumerate(raw):
        request.inputs.add(name=f"x{number}", datatype="UINT8", shape=[len(each)])
    data: bytes = request.SerializeToString()
    return data


def walked(data: bytes) -> Parts | None:
    try:
        return take_apart(data, DEFAULT_LIMITS)
    except ProtocolError:
        return None


def test_other_ids_and_tensors_are_the_same_layout() -> None:
    """And lead to the parts that a walk finds."""
    layouts: Layouts[str] = Layouts()
    first = message("id-1", b"abc", b"de")
    layouts.remember(first, take_apart(first, DEFAULT_LIMITS), "meaning")
    again = message("id-2", b"fgh", b"ij")
    found = layouts.recall(again)
    assert found is not None
    assert (found.meaning, found.parts) == ("meaning", take_apart(again, DEFAULT_LIMITS))


def test_other_lengths_are_other_layouts() -> None:
    """Of the id, of a tensor, or of all together where two lengths make up for each other."""
    layouts: Layouts[str] = Layouts()
    first = message("id", b"abc", b"de")
    layouts.remember(first, take_apart(first, DEFAULT_LIMITS), "")
    for other in (message("id3", b"abc", b"de"), message("id", b"ab", b"cde"), message("ide", b"ab", b"de")):
        assert layouts.recall(other) is None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=5), max_size=3), st.text("ab", max_size=4), st.data())
def test_what_is_recalled_is_what_a_walk_finds(raw: list[bytes], request_id: str, data: st.DataObject) -> None:
    """For any message as long as one that is known, however it differs; also with fields twice and out of order."""
    pieces = [message(request_id, *raw), message("", b"z"), message("q")]
    known = b"".join(data.draw(st.permutations(pieces))[: data.draw(st.integers(1, 3))])
    layouts: Layouts[bytes] = Layouts()
    parts = take_apart(known, DEFAULT_LIMITS)
    layouts.remember(known, parts, parts.head)
    other = bytearray(known)
    for _ in range(data.draw(st.integers(0, 3))):
        if other:
            other[data.draw(st.integers(0, len(other) - 1))] = data.draw(st.integers(0, 255))
    found = layouts.recall(bytes(other))
    if found is not None:
        assert found.parts == walked(bytes(other))
    if bytes(other) == known:
        assert found is not None


def test_what_is_kept_is_bounded() -> None:
    """In number and in the size of each; large heads and many tensors are walked over each time."""
    layouts: Layouts[str] = Layouts()
    for number in range(2000):
        each = message(model=f"m{number}")
        layouts.remember(each, take_apart(each, DEFAULT_LIMITS), "")
    kept = [each for each in (message(model=f"m{number}") for number in range(2000)) if layouts.recall(each)]
    assert 0 < len(kept) <= 512
    assert message(model="m1999") in kept
    for large in (message(model="m" * 2000), message("", *[b""] * 200)):
        layouts.remember(large, take_apart(large, DEFAULT_LIMITS), "")
        assert layouts.recall(large) is None
