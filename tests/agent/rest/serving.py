"""A real front end with a real runtime on real sockets, on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from inferd_agent import sockets
from inferd_agent.bridge import Bridge
from inferd_agent.config import Config, SharedMemory, parse_listener
from inferd_agent.config.schema import Metrics as MetricsConfig
from inferd_agent.config.schema import Server
from inferd_agent.identity import Identity, TokenStore
from inferd_agent.memory import Regions
from inferd_agent.metrics import Metrics
from inferd_agent.rest import RestApp
from inferd_runtime import Cancelled, Job, Runtime, RuntimeOptions
from tests import onnx_models

ROW = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)


def write_models(root: Path) -> Path:
    """mlp (inline), strings, wide, slow (some 10 ms), broken, two versions of versioned, labelled."""
    onnx_models.mlp(root / "mlp" / "1" / "model.onnx")
    onnx_models.string_identity(root / "strings.onnx")
    onnx_models.dynamic_width(root / "wide.onnx")
    onnx_models.faulting(root / "faulting.onnx")
    onnx_models.slow(root / "slow" / "1" / "model.onnx", layers=1024)
    for version, features in ((1, 8), (2, 16)):
        onnx_models.mlp(root / "versioned" / str(version) / "model.onnx", features=features)
    (root / "versioned" / "model.toml").write_text('engine = "onnxruntime"\nversions = "all"\n')
    onnx_models.mlp(root / "labelled" / "1" / "model.onnx", features=8, classes=3)
    (root / "labelled" / "names.txt").write_text("cat\ndog\nfox\n")
    (root / "labelled" / "model.toml").write_text('engine = "onnxruntime"\n[labels]\nprobabilities = "names.txt"\n')
    for name in ("mlp", "slow"):
        (root / name / "model.toml").write_text('engine = "onnxruntime"\n')
    (root / "faulting.toml").write_text('engine = "onnxruntime"\n')
    return root


class Serving:
    """One front end; `path` is its plain Unix socket and `port` its plain TCP port."""

    def __init__(
        self,
        folder: Path,
        models: Path,
        *,
        metrics_open: bool = False,
        shared_memory: SharedMemory = SharedMemory(),  # noqa: B008  frozen
        **server: Any,
    ) -> None:
        self.folder = folder
        self.path = str(folder / "s")
        self.shm = folder / "shm"  # instead of /dev/shm
        self.shm.mkdir()
        self.config = Config(
            server=Server(**server), metrics=MetricsConfig(open=metrics_open), shared_memory=shared_memory
        )
        self.tokens = TokenStore(folder / "state" / "tokens.json")
        self._models = models
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def start(self) -> None:
        """Listen, and load all models."""
        self._thread.start()
        self.bridge: Bridge = self.run(self._bridge())
        options = RuntimeOptions(models=(self._models,), cache_dir=self.folder / "cache", watch=False, planning="off")
        self.runtime = Runtime(options, deliver=self.bridge.deliver, defer=self.bridge.defer)
        self.bridge.bind(self.runtime)
        self.identity = Identity(self.tokens.path, (), own_uid=os.geteuid())
        metrics = Metrics(self.runtime)
        urls = (f"unix:{self.path}?tls=off", "tcp:127.0.0.1:0?tls=off&insecure=on")
        bounds = sockets.bind([parse_listener(url) for url in urls], mode=0o600)
        for bound in bounds:
            if bound.listener.kind == "tcp":
                self.port = int(bound.url.partition("?")[0].rpartition(":")[2])
        self.run(self._listen(metrics, bounds))
        self.runtime.start()
        assert self.runtime.wait_loaded(60)

    async def _bridge(self) -> Bridge:
        return Bridge(self._loop)

    async def _listen(self, metrics: Metrics, bounds: tuple[sockets.Bound, ...]) -> None:
        self.regions = Regions(self.config.shared_memory, folder=self.shm)
        self.app = RestApp(self.config, self.bridge, self.identity, metrics, self.regions)
        for bound in bounds:
            await self.app.listen(bound)

    def stop(self) -> bool:
        """Drain and close everything; whether the drain was complete."""
        is_whole: bool = self.run(self.app.drain(10))
        self.runtime.drain(5)
        self.runtime.close()
        self._loop.call_soon_threadsafe(self.bridge.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        return is_whole

    @contextlib.contextmanager
    def holding(self) -> Iterator[list[Job]]:
        """The jobs that come meanwhile. They reach the runtime only afterwards, so that no test has to be quicker."""
        jobs: list[Job] = []
        self.runtime.submit = jobs.append  # type: ignore[method-assign]
        try:
            yield jobs
        finally:
            del self.runtime.submit  # type: ignore[method-assign]
            self.run(self._submit(jobs))

    async def _submit(self, jobs: list[Job]) -> None:
        for job in jobs:
            with contextlib.suppress(Cancelled):
                self.runtime.submit(job)

    @contextlib.contextmanager
    def connected(self, *, tcp: bool = False, timeout_s: float = 10) -> Iterator[socket.socket]:
        """A connection; over TCP nobody is known by credentials."""
        with socket.socket(socket.AF_INET if tcp else socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(("127.0.0.1", self.port) if tcp else self.path)
            yield connection

    def ask(self, data: bytes, *, tcp: bool = False) -> Reply:
        """Send bytes, read one answer."""
        with self.connected(tcp=tcp) as connection:
            connection.sendall(data)
            return read_reply(connection)

    def get(self, path: str, headers: dict[str, str] | None = None, **more: Any) -> Reply:
        """GET a path."""
        return self.ask(request("GET", path, headers=headers), **more)

    def post(self, path: str, body: Any = b"", headers: dict[str, str] | None = None, **more: Any) -> Reply:
        """POST bytes, or an object as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask(request("POST", path, data, headers), **more)


class Reply:
    """Status, headers by lower-case name, body."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The text of a refusal, which must be in the one form of refusals."""
        assert self.headers["content-type"] == "application/json"
        found = self.json()
        assert list(found) == ["error"]
        return str(found["error"])


def request(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """The bytes of one HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    given = {name.lower() for name in headers or {}}
    if method == "POST" and not given & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def read_reply(connection: socket.socket, before: bytes = b"") -> Reply:
    """Read one response; `before` was read already. ConnectionError when it closes first."""
    data = before
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    while len(body) < int(headers.get("content-length", 0)):
        body += _some(connection)
    return Reply(int(status.split()[1]), headers, body)


def is_closed(connection: socket.socket) -> bool:
    """Whether the server ends the connection within the socket's time limit."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("closed by the server")
    return data


def infer_parts(array: np.ndarray, name: str = "x", **more: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a binary infer request."""
    tensor = {
        "name": name,
        "shape": list(array.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": array.nbytes},
    }
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}, **more}).encode()
    return header + array.tobytes(), {"Inference-Header-Content-Length": str(len(header))}


def infer_bytes(model: str, array: np.ndarray, headers: dict[str, str] | None = None, **more: Any) -> bytes:
    """A binary infer request."""
    body, own = infer_parts(array, **more)
    return request("POST", f"/v2/models/{model}/infer", body, {**own, **(headers or {})})


def outputs(reply: Reply) -> dict[str, np.ndarray]:
    """The FP32 outputs of an answer in binary or JSON."""
    length = reply.headers.get("inference-header-content-length")
    head = json.loads(reply.body[: int(length)] if length else reply.body)
    at = int(length) if length else 0
    found = {}
    for output in head["outputs"]:
        if "data" in output:
            found[output["name"]] = np.array(output["data"], np.float32).reshape(output["shape"])
        else:
            size = output["parameters"]["binary_data_size"]
            found[output["name"]] = np.frombuffer(reply.body[at : at + size], np.float32).reshape(output["shape"])
            at += size
    return found
