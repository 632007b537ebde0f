"""What the daemon costs while it does nothing, and how soon after its start it answers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import statistics
import time
from pathlib import Path
from typing import Any

import psutil

from bench import servers

SETTLE_S = 3.0
STARTS = 5


def idle(folder: Path, seconds: float) -> dict[str, float]:
    """CPU in percent of one core over some seconds, and resident memory, with no model loaded."""
    models = folder / "none"
    models.mkdir(parents=True)
    with servers.daemon(folder / "idle", models) as running:
        servers.wait_for(running.ca.exists, running.process)
        time.sleep(SETTLE_S)
        process = psutil.Process(running.process.pid)
        before, start_s = sum(process.cpu_times()[:2]), time.perf_counter()
        time.sleep(seconds)
        used_s, took_s = sum(process.cpu_times()[:2]) - before, time.perf_counter() - start_s
        return {"cpu_percent": round(100 * used_s / took_s, 3), "rss_mb": round(process.memory_info().rss / 1e6, 1)}


def start_to_answer(folder: Path, models: Path, model: str, name: str, array: Any) -> dict[str, float]:
    """Seconds from the start of the process to the first right answer; the first start only fills the cache."""
    times = [one_start(folder, models, model, name, array) for _ in range(STARTS + 1)]
    return {"cold_s": round(times[0], 3), "warm_s": round(statistics.median(times[1:]), 3)}


def one_start(folder: Path, models: Path, model: str, name: str, array: Any) -> float:
    """One start, tried every few milliseconds from outside."""
    with servers.daemon(folder, models) as running:
        request = servers.infer_request(model, name, array, running.token)
        servers.wait_for(lambda: running.ca.exists() and answers(running, request), running.process)
        return time.perf_counter() - running.started_s


def answers(running: servers.Daemon, request: bytes) -> bool:
    """Whether the request is answered with 200 now."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(10)
        plain.connect(str(running.socket))
        context = ssl.create_default_context(cafile=str(running.ca))
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            secure.sendall(request)
            return secure.recv(64).startswith(b"HTTP/1.1 200")
    return False
