"""What every request of a client carries: its headers, and how they are spelled on the wire."""

from __future__ import annotations

from typing import Any

from inferd.calls import Call
from inferd.errors import Unauthenticated
from inferd.protocol import HEADER_LENGTH
from inferd.retry import Deadline


def fixed_headers(authority: str, token: str | None) -> dict[str, str]:
    """The headers that are the same for every request of a client."""
    headers = {"Host": authority, "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {_checked(token)}"
    return headers


def _checked(token: str) -> str:
    """The token, which may hold visible ASCII only; its value stays out of the message."""
    text = token.strip()
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise Unauthenticated("the token holds characters that no token has")
    return text


def body_headers(length: int | None, size: int) -> dict[str, str]:
    """The headers that tell of a body; `length` is that of its JSON header where tensors follow."""
    if length is None:
        return {"Content-Type": "application/json", "Content-Length": str(size)}
    return {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(length), "Content-Length": str(size)}


def spell(headers: dict[str, str]) -> bytes:
    """Header lines as bytes."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")


def write_head(call: Call[Any], fixed: bytes, deadline: Deadline) -> tuple[bytes, list[bytes | memoryview]]:
    """The request line and headers, and the buffers of the body."""
    if call.encode is None:
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (call.method.encode(), call.path.encode(), fixed), [b""]
    length, buffers = call.encode(deadline.left_s())
    lines = spell({**body_headers(length, sum(map(len, buffers))), **call.headers})
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (call.method.encode(), call.path.encode(), lines, fixed), buffers
