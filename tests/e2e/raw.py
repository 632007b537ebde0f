"""Raw sockets, for saying to the daemon what no proper client would."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import numpy as np


@contextlib.contextmanager
def connected(target: str | tuple[str, int], ca: Path | None = None, timeout_s: float = 40) -> Iterator[socket.socket]:
    """A connection to a Unix path or (host, port), inside TLS when a CA is given."""
    if isinstance(target, str):
        plain = socket.socket(socket.AF_UNIX)
        plain.settimeout(timeout_s)
        plain.connect(target)
    else:
        plain = socket.create_connection(target, timeout_s)
    with plain:
        if ca is None:
            yield plain
            return
        with ssl.create_default_context(cafile=str(ca)).wrap_socket(plain, server_hostname="localhost") as secure:
            yield secure


def request(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """The bytes of one HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    given = {name.lower() for name in headers or {}}
    if body and not given & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one response with a Content-Length. Raises ConnectionError when the peer closed first."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    while len(body) < int(headers.get("content-length", 0)):
        body += _some(connection)
    return int(status.split()[1]), headers, body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("closed by the daemon")
    return data


def infer_bytes(model: str, name: str, array: np.ndarray, headers: dict[str, str] | None = None) -> bytes:
    """A proper binary infer request."""
    header = json.dumps({
        "inputs": [{
            "name": name, "shape": list(array.shape), "datatype": "FP32",
            "parameters": {"binary_data_size": array.nbytes},
        }],
        "parameters": {"binary_data_output": True},
    }).encode()  # fmt: skip
    given = {"Inference-Header-Content-Length": str(len(header)), **(headers or {})}
    return request("POST", f"/v2/models/{model}/infer", header + array.tobytes(), given)


_places: list[socket.socket] = []


def free_port() -> int:
    """A TCP port on loopback that nobody else on this machine is given, as long as this process lives.

    A socket that is bound and does not listen keeps it; whoever binds with SO_REUSEADDR, as servers do, may listen.
    """
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", 0))
    _places.append(place)
    return int(place.getsockname()[1])
