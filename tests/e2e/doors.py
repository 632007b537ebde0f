"""A daemon with every kind of door, and Triton's four clients, each at each door that it can go through."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

from tests.e2e.daemon import Daemon
from tests.e2e.raw import free_port

CLIENTS: dict[str, ModuleType] = {
    "http": tritonclient.http,
    "http.aio": tritonclient.http.aio,
    "grpc": tritonclient.grpc,
    "grpc.aio": tritonclient.grpc.aio,
}
PLACES = [
    *((kind, door) for kind in ("http", "http.aio") for door in ("tls", "loopback")),
    ("http.aio", "unix"),
    *((kind, door) for kind in ("grpc", "grpc.aio") for door in ("tls", "loopback", "unix", "unix-tls")),
]
_UNLIMITED = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]


class Doors:
    """TLS and plain loopback by REST and by gRPC, and a plain Unix socket of each; gRPC's has one with TLS, too."""

    def __init__(self, folder: Path, models: Path, **options: Any) -> None:
        self._folder = folder
        self._ports = {place: free_port() for place in (("http", "tls"), ("http", "loopback"), ("grpc", "tls"),
                                                        ("grpc", "loopback"))}  # fmt: skip
        listen = [f"unix:{folder}/h?tls=off", f"grpc+unix:{folder}/g?tls=off", f"grpc+unix:{folder}/t"]
        for (protocol, door), port in self._ports.items():
            prefix, suffix = "grpc+" * (protocol == "grpc"), "?tls=off&insecure=on" * (door == "loopback")
            listen.append(f"{prefix}tcp:127.0.0.1:{port}{suffix}")
        self.daemon = Daemon(folder, models=models, listen=tuple(listen), **options)

    def options(self, kind: str, door: str) -> dict[str, Any]:
        """What a client is made with, which does not say so for REST over a Unix socket."""
        protocol = kind.removesuffix(".aio")
        if door.startswith("unix"):
            url = f"unix:{self._folder}/{'t' if door == 'unix-tls' else 'g'}" if protocol == "grpc" else "localhost"
        else:
            url = f"localhost:{self._ports[protocol, door]}"
        if "tls" not in door:
            return {"url": url}
        if protocol == "grpc":
            arguments = [("grpc.ssl_target_name_override", "localhost"), *_UNLIMITED]
            return {"url": url, "ssl": True, "root_certificates": str(self.daemon.ca), "channel_args": arguments}
        context = ssl.create_default_context(cafile=str(self.daemon.ca))
        if kind == "http.aio":
            return {"url": url, "ssl": True, "ssl_context": context}
        return {"url": url, "ssl": True, "ssl_context_factory": lambda: context, "ssl_options": {}}

    @contextmanager
    def caller(self, kind: str, door: str, token: str) -> Iterator[Caller]:
        """One of the clients at one of the doors."""
        options = self.options(kind, door)
        with asyncio.Runner() as runner:
            if not kind.endswith(".aio"):
                with CLIENTS[kind].InferenceServerClient(**options) as client:
                    yield Caller(kind, door, client, token, runner)
                return

            async def make() -> Any:
                client = CLIENTS[kind].InferenceServerClient(**options)
                if (kind, door) == ("http.aio", "unix"):  # it has no option for that, but a session that can be another
                    await client._stub.close()
                    connector = aiohttp.UnixConnector(f"{self._folder}/h")
                    client._stub = aiohttp.ClientSession(connector=connector, auto_decompress=False)
                return client

            client = runner.run(make())
            try:
                yield Caller(kind, door, client, token, runner)
            finally:
                runner.run(client.close())


class Caller:
    """A client with a token; `ask` waits for the asyncio ones, too. `is_known`: whether it comes in without one."""

    def __init__(self, kind: str, door: str, client: Any, token: str, runner: asyncio.Runner) -> None:
        self.is_http = kind.startswith("http")
        self.is_known = self.is_http and door == "unix"
        self._is_awaited = kind.endswith(".aio")
        self.module = CLIENTS[kind]
        self.client = client
        self._token = token
        self._runner = runner

    def ask(self, act: str, *given: Any, token: str | None = None, **more: Any) -> Any:
        """Call one of the client's methods. Its headers are its own, as it writes into them; "" is no token."""
        token = self._token if token is None else token
        headers = {"authorization": f"Bearer {token}"} if token else None
        asked = getattr(self.client, act)(*given, headers=headers, **more)
        return self._runner.run(_awaited(asked)) if self._is_awaited else asked


async def _awaited(asked: Awaitable[Any]) -> Any:
    return await asked
