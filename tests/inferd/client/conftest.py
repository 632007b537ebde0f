"""One test server on three kinds of sockets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.inferd.client.server import Server, make_certificates, server_context, serving, tcp_socket, unix_socket


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """CA file, and certificate with key."""
    return make_certificates(tmp_path_factory.mktemp("tls"))


@dataclass
class Site:
    """Where the test server listens."""

    server: Server
    unix: str
    plain_unix: str
    https: str
    http: str
    ca: Path
    socket: Path


@pytest.fixture
def site(tmp_path: Path, certificates: tuple[Path, Path]) -> Iterator[Site]:
    """A fresh server on a TLS Unix socket, a plain one, https and http."""
    ca, leaf = certificates
    server, context = Server(), server_context(leaf)
    tls_path, plain_path = tmp_path / "s.sock", tmp_path / "p.sock"
    shutil.copy(ca, f"{tls_path}.ca.pem")
    https, http = tcp_socket(), tcp_socket()
    urls = (f"https://127.0.0.1:{https.getsockname()[1]}", f"http://127.0.0.1:{http.getsockname()[1]}")
    sites = [(unix_socket(tls_path), context), (unix_socket(plain_path), None), (https, context), (http, None)]
    with serving(server, sites):
        yield Site(server, f"unix:{tls_path}", f"unix:{plain_path}?tls=off", *urls, ca, tls_path)
