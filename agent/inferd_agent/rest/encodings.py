"""Content encodings both ways: gzip and deflate, with a cap while inflating.

Only inference answers are ever compressed, and never with br. Nothing here knows connections.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

from inferd_agent.errors import BodyTooLarge, UnsupportedEncoding
from inferd_agent.rest.answers import Buffers
from inferd_runtime import InvalidRequest

# zlib's window codes: a gzip container, and the zlib container that HTTP calls deflate.
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
# Fast rather than small: the peer is on this machine or near it.
_LEVEL = 1


def parse_content_encoding(text: str | None) -> str:
    """The encoding of a request body, "" for none. Raises UnsupportedEncoding."""
    name = (text or "").strip().lower()
    if name in ("", "identity"):
        return ""
    if name not in _WINDOWS:
        raise UnsupportedEncoding(f"Content-Encoding {name[:40]!r} is not spoken here: send gzip, deflate or identity")
    return name


@lru_cache(64)
def choose_encoding(accept: str) -> str:
    """What to answer in: the heaviest of gzip, deflate and identity, the first of equals; "" is identity."""
    best, weight = "", 0.0
    for part in accept.lower().split(","):
        name, _, parameters = part.partition(";")
        name = name.strip()
        if name not in ("gzip", "deflate", "identity"):
            continue
        q = _weight(parameters)
        if q > weight:
            best, weight = name, q
    return "" if best == "identity" else best


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return max(0.0, min(1.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0


def inflate(data: bytes | memoryview, encoding: str, limit: int) -> bytes:
    """The inflated body. Raises BodyTooLarge as soon as it passes `limit`, InvalidRequest for garbage."""
    machine = zlib.decompressobj(_WINDOWS[encoding])
    try:
        whole = machine.decompress(data, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not {encoding}: {error}") from None
    if len(whole) > limit:
        raise BodyTooLarge(f"the body inflates to more than {limit} bytes")
    if not machine.eof:
        raise InvalidRequest(f"the {encoding} body ends too early")
    if machine.unused_data:
        raise InvalidRequest(f"{len(machine.unused_data)} bytes are left after the {encoding} body")
    return whole


def compress(buffers: Buffers, encoding: str) -> bytes:
    """All buffers as one compressed body."""
    machine = zlib.compressobj(_LEVEL, wbits=_WINDOWS[encoding])
    parts = [machine.compress(each) for each in buffers]
    parts.append(machine.flush())
    return b"".join(parts)
