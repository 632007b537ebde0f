"""What the real daemon tells its service manager, from the start to the stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

from tests import onnx_models
from tests.e2e.daemon import Daemon


def test_the_manager_is_told_the_truth(tmp_path: Path) -> None:
    """READY with its models warm, food for the watchdog without any caller, the reload's begin and end, the stop's
    begin with the time that it may take."""
    onnx_models.mlp(tmp_path / "models" / "mlp" / "1" / "model.onnx")
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(40)

        def wait_for(state: str) -> str:
            while True:
                message = manager.recv(4096).decode()
                if message.startswith(state):
                    return message

        env = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "1000000"}
        with Daemon(tmp_path, env=env) as daemon:
            assert "STATUS=models: 1 ready" in wait_for("READY=1")
            for _ in range(3):
                wait_for("WATCHDOG=1")
            with daemon.client() as client:
                (stats,) = client.stats("mlp")["model_stats"]
                assert stats["inference_count"] >= 1
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in wait_for("RELOADING=1")
            wait_for("READY=1")
            daemon.process.send_signal(signal.SIGTERM)
            assert "EXTEND_TIMEOUT_USEC=40000000" in wait_for("STOPPING=1")


def test_a_loop_that_stands_is_not_fed(tmp_path: Path) -> None:
    """Nothing is said while the process is stopped; what it goes on with when continued is food."""
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(40)
        with Daemon(tmp_path, env={"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "1000000"}) as daemon:
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, daemon.process.pid, os.WSTOPPED | os.WNOWAIT)
            manager.settimeout(1.5)
            with contextlib.suppress(TimeoutError):
                while manager.recv(4096):
                    pass  # what it said before, and then nothing any more
            daemon.process.send_signal(signal.SIGCONT)
            manager.settimeout(40)
            assert manager.recv(4096)
