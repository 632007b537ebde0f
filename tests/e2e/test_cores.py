"""Cores that are taken away from the daemon, and given back, while it serves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from inferd_runtime import probe
from tests.e2e.daemon import Daemon, until

ROW = np.ones((1, 64), np.float32)


def bind(pid: int, cores: set[int]) -> None:
    """Let every thread of a process run on these CPUs only, as `taskset -a` does."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


@pytest.mark.skipif(probe().allowed_physical < 2, reason="only one core is ours")
def test_cores_taken_away_while_serving(fresh: Daemon) -> None:
    """Bound to one CPU in the middle of its work the daemon has a budget of one, and all again when they are back;
    every request is answered."""
    daemon = Daemon(fresh.folder, env={"INFERD_RUNTIME_GOVERNOR": "fixed"})
    with daemon, daemon.client() as client:
        assert daemon.process is not None
        pid, allowed = daemon.process.pid, os.sched_getaffinity(0)
        expected = client.infer("mlp", {"x": ROW})["probabilities"]

        def budget() -> float:
            """The budget, while requests go on."""
            assert np.allclose(client.infer("mlp", {"x": ROW})["probabilities"], expected, atol=0.02)
            (line,) = [line for line in client.metrics().splitlines() if line.startswith("inferd_core_budget ")]
            return float(line.split()[1])

        whole = budget()
        assert whole > 1
        bind(pid, {min(allowed)})
        until(lambda: budget() == 1)
        bind(pid, allowed)
        until(lambda: budget() == whole)
