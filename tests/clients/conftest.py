"""A daemon with a door of every kind for clients that are programs and environments of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import onnx_models
from tests.clients import fetch
from tests.e2e.daemon import Daemon
from tests.e2e.raw import free_port

# Read when tests are collected: each test gets an environment of its own later.
CACHE = fetch.cache_root()
IDENTITIES = tuple(onnx_models.ONNX_TYPES)


@dataclass(frozen=True, slots=True)
class Site:
    """A running daemon, where it listens, and a token that may infer and read."""

    daemon: Daemon
    ports: dict[str, int]
    token: str

    def path(self, door: str) -> Path:
        """The Unix socket of a door."""
        return self.daemon.folder / door


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """mlp, wide, strings, and same_<datatype> for all datatypes; REST and gRPC by TLS, loopback and Unix sockets."""
    folder = tmp_path_factory.mktemp("c")
    models = folder / "models"
    onnx_models.mlp(models / "mlp" / "1" / "model.onnx")
    onnx_models.dynamic_width(models / "wide.onnx")
    for datatype in IDENTITIES:
        onnx_models.identity(models / f"same_{datatype.lower()}.onnx", datatype)
    ports = {door: free_port() for door in ("tls", "loopback", "grpc-tls", "grpc-loopback")}
    listen = (
        f"tcp:127.0.0.1:{ports['tls']}",
        f"tcp:127.0.0.1:{ports['loopback']}?tls=off&insecure=on",
        f"unix:{folder}/unix?tls=off",
        f"unix:{folder}/unix-tls",
        f"grpc+tcp:127.0.0.1:{ports['grpc-tls']}",
        f"grpc+tcp:127.0.0.1:{ports['grpc-loopback']}?tls=off&insecure=on",
        f"grpc+unix:{folder}/grpc-unix?tls=off",
        f"grpc+unix:{folder}/grpc-unix-tls",
    )
    env = {"INFERD_SERVER_SOCKET_MODE": "0660", "INFERD_SHARED_MEMORY_SYSTEM": "true"}
    with Daemon(folder, models=models, listen=listen, env=env) as daemon:
        yield Site(daemon, ports, daemon.token())


def fetched(get: Callable[..., Path]) -> Path:
    """What was fetched before; skips without `make test-clients`, and where it could not be had."""
    if "TEST_CLIENTS" not in os.environ:
        pytest.skip("clients with environments of their own are tried by `make test-clients`")
    try:
        return get(CACHE, may_fetch=False)
    except fetch.Missing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def perf_analyzer() -> Path:
    """The folder of perf_analyzer and its libraries."""
    return fetched(fetch.perf_analyzer)


@pytest.fixture(scope="session")
def kserve() -> Path:
    """An interpreter that has kserve."""
    return fetched(fetch.kserve)
