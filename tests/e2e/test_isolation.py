"""A model in a process of its own dies alone, and comes back."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import numpy as np

from inferd.errors import NotReady
from tests import onnx_models
from tests.e2e.daemon import Daemon, until

ROW = np.ones((1, 64), np.float32)


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`; threads have children, too, and may end while they are asked."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, (task / "children").read_text().split())
    return found


def test_an_isolated_model_dies_alone_and_comes_back(fresh: Daemon) -> None:
    """kill -9 of its process: its own callers are told 503 until it is back, and every other model answers on."""
    onnx_models.mlp(fresh.models / "alone" / "1" / "model.onnx")
    (fresh.models / "alone" / "model.toml").write_text('isolation = "process"\n')
    fresh.start()
    assert fresh.process is not None
    pid = fresh.process.pid
    with fresh.client() as client:
        expected = client.infer("mlp", {"x": ROW})["probabilities"]
        assert np.allclose(client.infer("alone", {"x": ROW})["probabilities"], expected, atol=0.02)

        def answers() -> bool:
            client.infer("mlp", {"x": ROW})
            try:
                client.infer("alone", {"x": ROW})
            except NotReady as error:
                told.append(str(error))
                return False
            return True

        told: list[str] = []
        for _ in range(3):
            before = children(pid)
            os.kill(before[0], signal.SIGKILL)
            until(lambda before=before: children(pid) not in ([], before))
            until(answers)
        assert all("SIGKILL" in each for each in told)
        assert [each["state"] for each in client.index()] == ["READY", "READY"]
        last = children(pid)
    assert fresh.stop() == 0
    assert not any(Path(f"/proc/{child}").exists() for child in last)
