"""200 000 mutated requests: each is read or refused with a ProtocolError, and memory stays where it was."""

from __future__ import annotations

import random
import re
import resource

import numpy as np

from inferd.protocol import DATATYPES, ProtocolError, RegionRef, Request, decode_request, encode_request
from inferd.protocol.requests import OutputRequest

RUNS = 200_000
TOKEN = re.compile(rb'(-?[0-9.]+|"[^"]*"|true|false)')
TOKENS = (
    b"NaN", b"-Infinity", b"null", b"true", b"[", b"]", b"{", b"}", b'"', b"\\", b",", b":", b"-1", b"1e999", b"0",
    b"9" * 40, b"4611686018427387904", b"1099511627776", b"\xff\xff\xff\xff", b"\x00", b"\xed\xa0\x80", b"[[[[[[[[",
    b'"binary_data_size":', b'"data":[1]', b'"shape":[', b'"shared_memory_region":"r"', b'"BYTES"', b'"BOOL"',
    b'"FP64"', b'"FP16"', b'"parameters":{"timeout":-1}', b'{"$":"NaN"}', b"{}", b"\n", b'"outputs":[{"name":"y"}]',
)  # fmt: skip
VALUES = (
    b"0", b"1", b"2", b"3", b"6", b"8", b"24", b"-1", b"1.5", b"NaN", b"256", b"4294967296", b"9223372036854775807",
    b"99999999999999999999", b"true", b"null", b"[]", b"[[]]", b"[1,2]", b'["a"]', b"{}", b'"x"', b'"y"', b'"data"',
    b'"binary_data_size"', b'"shared_memory_region"', b'"classification"', b'"timeout"', b'"sequence_id"',
    *(f'"{name}"'.encode() for name in DATATYPES),
)  # fmt: skip


def corpus() -> list[tuple[int | None, bytes]]:
    """Valid requests of every datatype and form."""
    arrays = {name: np.ones((2, 3), dtype) for name, dtype in DATATYPES.items() if name != "BYTES"}
    arrays["BYTES"] = np.array([[b"ab", b"", b"\xc3\xa9"], [b"x", b"y", b"z"]], object)
    requests = [encode_request({"x": array}, id="1") for array in arrays.values()]
    requests += [
        encode_request({"x": array}, ["y"], {"timeout": 5, "priority": 1, "k": "v"}, binary=False)
        for name, array in arrays.items()
        if name not in ("FP16", "BF16")
    ]
    requests.append(encode_request(arrays, [OutputRequest("y", True, 3), "z"]))
    place = RegionRef("r", 8, 24)
    requests.append(encode_request({"x": arrays["FP32"]}, [OutputRequest("y", place=place)], places={"x": place}))
    requests.append(encode_request({"x": np.array([np.nan, -np.inf])}, binary=False))
    requests.append((None, [b'{"inputs":[{"name":"x","shape":[2,1,2],"datatype":"FP32","data":[[[1,2]],[[3,4]]]}]}']))
    return [(length, b"".join(buffers)) for length, buffers in requests]


def mutate(rng: random.Random, body: bytearray, at_most: int) -> None:
    """Up to three small injuries, most of them in the header, where they matter."""
    for _ in range(rng.randrange(1, 4)):
        at = int(rng.random() * at_most)
        kind = rng.random()
        if kind < 0.35:
            body[at : at + int(rng.random() * 8)] = TOKENS[int(rng.random() * len(TOKENS))]
        elif kind < 0.6 and at < len(body):
            body[at] = int(rng.random() * 256)
        elif kind < 0.75:
            del body[at : at + int(rng.random() * 12)]
        elif kind < 0.9:
            body[at:at] = body[int(rng.random() * at_most) :][: int(rng.random() * 30)]
        else:
            del body[len(body) - int(rng.random() * 20) :]


def swap(rng: random.Random, parts: list[bytes]) -> bytes:
    """The header with one JSON token replaced by another, so that it mostly stays JSON and lies in its values."""
    swapped = list(parts)
    swapped[2 * int(rng.random() * (len(parts) // 2)) + 1] = VALUES[int(rng.random() * len(VALUES))]
    return b"".join(swapped)


def check(request: Request) -> None:
    """What got through is sound: read-only arrays of the protocol's dtypes."""
    for array in request.inputs.values():
        assert not array.flags.writeable
        assert array.flags.c_contiguous
        assert array.flags.aligned


def test_mutated_requests_are_read_or_refused() -> None:
    """No exception but ProtocolError ever leaves the decoder, and no claim makes it allocate."""
    rng = random.Random(2)
    seeds = corpus()
    for length, body in seeds:
        check(decode_request(body, length))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = 0
    for _ in range(RUNS):
        length, whole = seeds[int(rng.random() * len(seeds))]
        if rng.random() < 0.5:
            size = len(whole) if length is None else length
            body = bytearray(swap(rng, TOKEN.split(whole[:size])) + whole[size:])
        else:
            body = bytearray(whole)
            mutate(rng, body, max(1, length or len(body)))
        if length is not None:
            spread = rng.random()
            length = length + len(body) - len(whole) if spread < 0.8 else int(rng.random() * (len(body) + 4)) - 2
        try:
            check(decode_request(bytes(body), length))
            read += 1
        except ProtocolError as error:
            assert str(error)  # noqa: PT017
    assert read > RUNS // 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 << 10
