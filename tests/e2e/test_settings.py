"""Every kind of setting has its effect on a running daemon; limits of single connections are tested in agent/rest."""

from __future__ import annotations

import grp
import json
import os
import signal
import socket
import ssl
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from inferd import errors
from tests import onnx_models
from tests.e2e.daemon import Daemon, until
from tests.e2e.raw import answer, connected, free_port, request

ROWS = np.ones((64, 512), np.float32)
GROUP = next((g for g in os.getgroups() if g != os.getegid()), 1 if os.geteuid() == 0 else os.getegid())


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, int]]:
    """A daemon configured by a file in which hardly anything is as by default, and its TCP port."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "inferd.toml").write_text(f"""
        [server]
        socket_mode = "0640"
        socket_group = "{grp.getgrgid(GROUP).gr_name}"
        [models]
        load = "none"
        [runtime]
        cores = 1
        governor = "fixed"
        inline = "off"
        engine = "onnxruntime"
        max_jobs = 2
        max_queue_bytes = 7000000
        [tls]
        names = ["box.test"]
        [metrics]
        open = true
        [log]
        level = "warning"
        format = "json"
        [state]
        cache_dir = "{folder}/elsewhere"
    """)
    onnx_models.mlp(folder / "models" / "mlp.onnx")
    onnx_models.slow(folder / "models" / "slow.onnx", layers=1024)
    port = free_port()
    args = ("--config", str(folder / "inferd.toml"))
    with Daemon(folder, listen=(f"tcp:127.0.0.1:{port}",), args=args) as daemon:
        yield daemon, port


def figures(port: int, ca: Path) -> dict[str, float]:
    """The metrics that have no labels, asked for by nobody known."""
    with connected(("127.0.0.1", port), ca) as connection:
        connection.sendall(request("GET", "/metrics"))
        status, _, body = answer(connection)
    assert status == 200
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in body.decode().splitlines())
        if name and "{" not in name and not name.startswith("#")
    }


def test_the_socket_has_its_mode_and_group(odd: tuple[Daemon, int]) -> None:
    """server.socket_mode, server.socket_group."""
    found = odd[0].socket.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o640, GROUP)


def test_the_certificate_has_the_names(odd: tuple[Daemon, int]) -> None:
    """tls.names: callers may know the daemon by them, and by no other."""
    context = ssl.create_default_context(cafile=str(odd[0].ca))
    with socket.create_connection(("127.0.0.1", odd[1])) as plain:
        context.wrap_socket(plain, server_hostname="box.test").close()
    with socket.create_connection(("127.0.0.1", odd[1])) as plain, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(plain, server_hostname="other.test")


def test_metrics_may_be_open_and_tell_the_budgets(odd: tuple[Daemon, int]) -> None:
    """metrics.open opens /metrics and nothing else; runtime.cores, runtime.max_queue_bytes."""
    daemon, port = odd
    found = figures(port, daemon.ca)
    assert (found["inferd_core_budget_ceiling"], found["inferd_core_budget"]) == (1, 1)
    assert found["inferd_queue_limit_bytes"] == 7_000_000
    with connected(("127.0.0.1", port), daemon.ca) as connection:
        connection.sendall(request("GET", "/v2"))
        assert answer(connection)[0] == 401


def test_models_wait_for_their_load_and_get_the_engine(odd: tuple[Daemon, int]) -> None:
    """models.load = "none", runtime.engine, runtime.inline, state.cache_dir."""
    daemon, _ = odd
    with daemon.client() as client:
        assert {each["state"] for each in client.index() if each["name"] == "mlp"} == {"UNAVAILABLE"}
        assert client.is_ready()
        client.load("mlp")
        [found] = client.descriptions("mlp")
    assert found["state"] == "READY"
    assert found["plan"]["engine"] == "onnxruntime"
    assert not found["plan"]["inline"]
    assert "in the daemon's configuration" in found["plan"]["reason"]
    assert (daemon.folder / "elsewhere").is_dir()
    assert not (daemon.state / "cache").exists()


def test_a_full_queue_refuses(odd: tuple[Daemon, int]) -> None:
    """runtime.max_jobs bounds what waits for one model."""
    daemon, _ = odd

    def ask(_: int) -> str:
        try:
            with daemon.client() as client:
                client.infer("slow", {"x": ROWS})
        except errors.InferdError as error:
            return type(error).__name__
        return "answered"

    with daemon.client() as client:
        client.load("slow")
    with ThreadPoolExecutor(12) as pool:
        outcomes = set(pool.map(ask, range(12)))
    assert outcomes == {"answered", "Overloaded"}


def test_the_log_has_its_level_and_format(odd: tuple[Daemon, int]) -> None:
    """log.level, log.format: JSON lines of warnings and worse, beside the summary."""
    daemon, port = odd
    with connected(("127.0.0.1", port), daemon.ca) as connection:
        connection.sendall(request("GET", "/v2", headers={"Authorization": "Bearer nobody"}))
        assert answer(connection)[0] == 401
    until(lambda: "not a token" in daemon.log())
    lines = [json.loads(line) for line in daemon.log().splitlines() if line.startswith("{")]
    assert {line["level"] for line in lines} <= {"warning", "error"}


def test_a_stop_waits_only_so_long(fresh: Daemon) -> None:
    """server.drain_s: what is not answered by then is given up, and the log says so."""
    onnx_models.looping(fresh.models / "looping" / "1" / "model.onnx")
    fresh._env |= {"INFERD_SERVER_DRAIN_S": "0.1", "INFERD_RUNTIME_INLINE": "off"}
    fresh.start()
    turns = np.array([10_000], np.int64)

    def ask(_: int) -> bool:
        with fresh.client() as client:
            try:
                client.infer("looping", {"turns": turns})
            except errors.InferdError:
                return False
        return True

    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, n) for n in range(16)]
        with fresh.client() as client:
            until(lambda: "inferd_queued_jobs 0.0" not in client.metrics())
        assert fresh.process is not None
        fresh.process.send_signal(signal.SIGTERM)
        assert not all(each.result() for each in asked)
    assert fresh.stop() == 0
    assert "still under way after 0.1 s" in fresh.log()
