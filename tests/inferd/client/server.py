"""A small V2 server on real sockets, in a thread of its own, and a scripted peer that speaks bytes."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from inferd.protocol import HEADER_LENGTH, ProtocolError, decode_request, encode_response, messages, parse_header_length

TOKEN = "ifd_test_secret"


def make_certificates(folder: Path, name: str = "ca") -> tuple[Path, Path]:
    """A CA certificate, and a file with a certificate for localhost and its key."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {name}")])

    def build(subject: x509.Name, public_key: Any, *extensions: tuple[x509.ExtensionType, bool]) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(hours=1))
        )  # fmt: skip
        for extension, is_critical in extensions:
            builder = builder.add_extension(extension, is_critical)
        return builder.sign(ca_key, hashes.SHA256())

    ca = build(issuer, ca_key.public_key(), (x509.BasicConstraints(ca=True, path_length=0), True))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    leaf = build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")]), key.public_key(), (names, False))
    ca_file, leaf_file = folder / f"{name}.pem", folder / f"{name}-leaf.pem"
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    leaf_file.write_bytes(leaf.public_bytes(serialization.Encoding.PEM) + private)
    return ca_file, leaf_file


def server_context(leaf: Path) -> ssl.SSLContext:
    """TLS 1.3 as the daemon speaks it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(leaf)
    return context


class Server:
    """Serves the model `echo`, refuses as told, and remembers what came."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.parameters: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.peers: set[object] = set()
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.hold = threading.Event()
        self.has_request = threading.Event()

    def application(self) -> web.Application:
        """The routes; every path leads to the same few answers."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self.answer)
        return app

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request.method, request.raw_path))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.peers.add(request.transport)
        self.has_request.set()
        if self.refusals:
            status, headers = self.refusals.pop(0)
            return self.error(status, f"refused with {status}", headers)
        if request.path in ("/v2/health/live", "/v2/health/ready"):
            return web.json_response({"live": True})
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.error(401, "who are you", {"WWW-Authenticate": "Bearer"})
        if request.path.endswith("/infer"):
            return await self.infer(request, body)
        return self.describe(request, body)

    async def infer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if "/models/echo" not in request.path and "/models/held" not in request.path:
            return self.error(404, "no such model", {})
        if "/models/held" in request.path:
            await asyncio.to_thread(self.hold.wait, 30)
        try:
            asked = decode_request(body, parse_header_length(request.headers.get(HEADER_LENGTH)))
            self.parameters.append(dict(asked.parameters))
            length, buffers = encode_response(asked, "echo", "3", asked.inputs)
        except ProtocolError as error:
            return self.error(400, str(error), {})
        headers = {"X-Request-Id": "r1"}
        if length is not None:
            headers[HEADER_LENGTH] = str(length)
        if request.headers.get("Inferd-Timing") == "1":
            headers["Inferd-Timing"] = "queue=12.5;run=85;rows=2;novelty=yes"
        return web.Response(body=b"".join(buffers), headers=headers, content_type="application/octet-stream")

    def describe(self, request: web.Request, body: bytes) -> web.StreamResponse:
        tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
        answers: dict[str, Any] = {
            "/v2": {"name": "inferd", "version": "1", "extensions": []},
            "/v2/models/echo": {"name": "echo", "versions": ["3"], "inputs": [tensor], "outputs": [tensor]},
            "/v2/models/echo/versions/3": {"name": "echo", "versions": ["3"], "platform": "p"},
            "/v2/models/echo/ready": {},
            "/v2/models/echo/config": {"name": "echo", "max_batch_size": 8},
            "/v2/models/stats": {"model_stats": []},
            "/v2/models/echo/stats": {"model_stats": [{"name": "echo"}]},
            "/v2/repository/index": [{"name": "echo", "version": "3", "state": "READY"}],
            "/v2/repository/models/echo/load": {},
            "/v2/repository/models/echo/unload": {},
            "/inferd/v1/models": [{"name": "echo"}],
            "/inferd/v1/models/echo": [{"name": "echo"}],
            "/inferd/v1/models/echo/plan": {"model": "echo", "state": "static", "ordered": body.decode()},
            "/inferd/v1/models/echo/versions/3/plan": {"model": "echo", "version": 3},
        }  # fmt: skip
        if request.path == "/metrics":
            return web.Response(text="inferd_up 1\n")
        if request.path == "/v2/models/odd":
            return web.Response(text="<html>")
        if request.path not in answers:
            return self.error(404, f"no {request.path}", {})
        return web.json_response(answers[request.path])

    def error(self, status: int, text: str, headers: dict[str, str]) -> web.Response:
        body = messages.encode(messages.ErrorBody(text))
        return web.Response(
            status=status, body=body, headers={"X-Request-Id": "r1", **headers}, content_type="application/json"
        )  # fmt: skip


async def end_connections() -> None:
    """At once, whether they are in a handshake, in use or in their polite end, for which nobody would wait. aiohttp
    knows those in use only, and those that were accepted just now are not even there before the loop's next turns."""
    loop: Any = asyncio.get_running_loop()
    for _ in range(5):
        for transport in list(loop._transports.values()):
            transport.abort()
        await asyncio.sleep(0)


@contextmanager
def serving(server: Server, sites: list[tuple[socket.socket, ssl.SSLContext | None]]) -> Iterator[None]:
    """Run the server on these bound sockets until the block ends."""
    is_up = threading.Event()
    stop: list[Callable[[], Any]] = []

    async def run() -> None:
        runner = web.AppRunner(server.application(), handle_signals=False, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        listening = [web.SockSite(runner, sock, ssl_context=context) for sock, context in sites]
        for site in listening:
            await site.start()
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        stop.append(lambda: loop.call_soon_threadsafe(done.set))
        is_up.set()
        await done.wait()
        server.hold.set()
        for sock, _ in sites:
            loop.remove_reader(sock)
        await asyncio.sleep(0)  # asyncio would lose a connection that it accepted just now and whose server has closed
        for site in listening:
            await site.stop()
        await end_connections()
        server.peers.clear()  # they belong to this loop, and the server may be started again
        await runner.cleanup()

    def run_to_its_end() -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(run())

    thread = threading.Thread(target=run_to_its_end, daemon=True)
    thread.start()
    assert is_up.wait(60)
    try:
        yield
    finally:
        stop[0]()
        thread.join(60)
        for sock, _ in sites:
            sock.close()


def unix_socket(path: Path) -> socket.socket:
    """A bound Unix socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    return sock


def tcp_socket(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A bound loopback socket, on a free port if none is given."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock


@contextmanager
def scripted(path: Path, connections: list[list[bytes | None]]) -> Iterator[list[bytes]]:
    """A peer that answers request by request with given bytes, whatever it is asked; None closes. Yields what came."""
    heard: list[bytes] = []
    listener = unix_socket(path)
    listener.listen()

    def run() -> None:
        for script in connections:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(10)
                for reply in script:
                    heard.append(read_request(sock))
                    if reply is None:
                        break
                    sock.sendall(reply)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def read_request(sock: socket.socket) -> bytes:
    """One whole request with its body, or what came before the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while lengths and len(body) < int(lengths[0]):
        piece = sock.recv(65536)
        if not piece:
            break
        body += piece
    return head + b"\r\n\r\n" + body
