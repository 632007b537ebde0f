"""Processes that a bench needs: the real daemon and the echo server, pinned or not, always ended by their own id."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import load

INFERD = [sys.executable, "-m", "inferd_agent"]
READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running `inferd serve`; `socket` speaks TLS, `plain` is the same without."""

    process: subprocess.Popen[bytes]
    state: Path
    socket: Path
    plain: Path
    token: str
    started_s: float

    @property
    def ca(self) -> Path:
        return Path(f"{self.socket}.ca.pem")

    def models(self) -> list[dict[str, Any]]:
        """What `inferd models --json` says."""
        command = [*INFERD, "models", "--json", "--url", f"unix:{self.socket}", "--token", self.token]
        found: list[dict[str, Any]] = output_of(command)
        return found


@contextlib.contextmanager
def daemon(folder: Path, models: Path, core: int | None = None, **settings: str) -> Iterator[Daemon]:
    """A daemon serving `models` with its state in `folder`; a second one there finds compiled models in the cache.

    `settings` are environment variables of its configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state, socket, plain = folder / "state", folder / "tls.sock", folder / "plain.sock"
    name = f"bench-{time.time_ns()}"  # names are taken once, and a folder may see several daemons
    made = output_of([*INFERD, "token", "create", name, "--scopes", "infer,read", "--state", str(state), "--json"])
    command = [*INFERD, "serve", "--models", str(models), "--state", str(state)]
    command += ["--listen", f"unix:{socket}", "--listen", f"unix:{plain}?tls=off"]
    started_s = time.perf_counter()
    with (folder / "log").open("wb") as log, ended(command, log, core, settings) as process:
        yield Daemon(process, state, socket, plain, made["token"], started_s)


@contextlib.contextmanager
def echo(folder: Path, cert: Path, key: Path, core: int | None = None) -> Iterator[Path]:
    """The echo server's socket, once it is there."""
    socket = folder / "echo.sock"
    command = [sys.executable, "-m", "bench.echo", "--socket", str(socket), "--cert", str(cert), "--key", str(key)]
    with (folder / "echo.log").open("wb") as log, ended(command, log, core) as process:
        wait_for(socket.exists, process)
        yield socket


@contextlib.contextmanager
def ended(
    command: list[str], log: Any, core: int | None, settings: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process, on one core if so wished, that is gone afterwards."""
    pin = None if core is None else lambda: os.sched_setaffinity(0, {core})
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        preexec_fn=pin,
        env={**os.environ, "INFERD_PLANNING_MODE": "off", **(settings or {})},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(condition: Any, process: subprocess.Popen[bytes]) -> None:
    """Until `condition()` holds, while the process lives."""
    end_s = time.perf_counter() + READY_S
    while not condition():
        if process.poll() is not None or time.perf_counter() > end_s:
            raise RuntimeError(f"process {process.pid} ended or was not ready in {READY_S:.0f} s")
        time.sleep(0.002)


def infer_request(model: str, name: str, array: np.ndarray[Any, Any], token: str, request_id: str = "") -> bytes:
    """The bytes of a whole infer request, tensors binary both ways."""
    tensor: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": array.nbytes}
    fields: dict[str, Any] = {"id": request_id} if request_id else {}
    fields |= {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    header = json.dumps(fields, separators=(",", ":")).encode()
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(header)}\r\n"
        f"Content-Length: {len(header) + array.nbytes}\r\n\r\n"
    )
    return head.encode() + header + array.tobytes()


def generate(
    socket: Path,
    ca: Path | None,
    request: Path,
    connections: int,
    seconds: float,
    core: int = -1,
    warm_up_s: float = load.WARM_UP_S,
) -> dict[str, Any]:
    """One run of the load generator, as its JSON."""
    command = [sys.executable, "-m", "bench.load", "--socket", str(socket), "--request", str(request)]
    command += ["--connections", str(connections), "--seconds", str(seconds), "--core", str(core)]
    command += ["--warm-up", str(warm_up_s)]
    if ca is not None:
        command += ["--ca", str(ca)]
    found: dict[str, Any] = output_of(command)
    return found


def output_of(command: list[str]) -> Any:
    """The JSON that a child prints."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command[2:5])}: {ran.stdout}{ran.stderr}")
    return json.loads(ran.stdout)


def only(models: Path, names: tuple[str, ...], target: Path) -> Path:
    """A models folder with copies of just these."""
    target.mkdir(parents=True)
    for name in names:
        shutil.copytree(models / name, target / name)
    return target
