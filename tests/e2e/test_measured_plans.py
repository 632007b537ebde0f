"""Measured plans in the real daemon: measured beside the traffic, moved to without a failed request, kept for good."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import onnx_models
from tests.e2e.daemon import Daemon

ROW = np.ones((1, 64), np.float32)
pytestmark = pytest.mark.timeout(90)


def hammered(daemon: Daemon, act: Callable[[], None]) -> int:
    """How many requests were answered while `act` went on; every one of them rightly."""
    over, count = threading.Event(), 0
    expected = onnx_models.mlp_reference(ROW)

    def run() -> None:
        try:
            act()
        finally:
            over.set()

    thread = threading.Thread(target=run)
    thread.start()
    with daemon.client() as client:
        while not over.is_set():
            assert np.allclose(client.infer("mlp", {"x": ROW})["probabilities"], expected, atol=0.02)
            count += 1
    thread.join()
    return count


def test_a_plan_is_measured_served_and_kept(fresh: Daemon) -> None:
    """`inferd plan` measures beside the traffic; the plan serves without a failed request, and after a restart."""
    fresh.start()
    golden = fresh.models / "mlp" / "golden" / "real.npz"  # inputs that come after the model are used all the same
    golden.parent.mkdir()
    np.savez(golden, x=ROW)
    told: list[str] = []

    def measure() -> None:
        done = fresh.cli("plan", "mlp", "--budget", "3", "--json", "--url", fresh.url, timeout_s=60)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)

    assert hammered(fresh, measure) > 0
    measured = json.loads(told[0])
    assert measured["state"] == "measured"
    evidence = measured["evidence"]
    assert evidence["inputs"] == "golden"
    assert evidence["chosen"] in [trial["name"] for trial in evidence["trials"] if trial["outcome"] == "measured"]
    with fresh.client() as client:
        plan = client.descriptions("mlp")[0]["plan"]
    assert plan["reason"].startswith("Measured: ")
    assert "mlp version 1 has a new plan" in fresh.log()
    fresh.stop()

    fresh.start()
    with fresh.client() as client:
        assert client.descriptions("mlp")[0]["plan"]["reason"] == plan["reason"]
    shown = fresh.cli("explain", "mlp", "--url", fresh.url)
    assert evidence["chosen"] in shown.stdout
    fresh.stop()

    (kept,) = Path(fresh.state / "cache" / "plans").glob("*.json")
    kept.write_bytes(kept.read_bytes()[:100])
    fresh.start()
    with fresh.client() as client:
        assert client.descriptions("mlp")[0]["plan"]["reason"].startswith("Static rule")
    assert "is left aside" in fresh.log()


@pytest.mark.parametrize(("tolerance", "outcomes"), [(1000, {"measured", "skipped"}), (1e-6, {"vetoed", "skipped"})])
def test_the_models_own_metric_and_tolerance_judge(fresh: Daemon, tolerance: float, outcomes: set[str]) -> None:
    """`metric` and `tolerance` in model.toml decide which variants may serve, and the evidence names the figure."""
    folder = fresh.models / "mlp"
    onnx_models.mlp(folder / "1" / "model.int8.onnx", hidden=32)  # another network: its answers are far off
    (folder / "model.toml").write_text(f'metric = "relative"\ntolerance = {tolerance}\n')
    fresh.start()
    done = fresh.cli("plan", "mlp", "--budget", "3", "--json", "--url", fresh.url, timeout_s=60)
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)["evidence"]["trials"]
    int8 = [trial for trial in trials if trial["candidate"]["variant"] == "int8"]
    assert {trial["outcome"] for trial in int8} <= outcomes
    (judged, *_) = [trial for trial in int8 if trial["outcome"] != "skipped"]
    assert judged["metric"] == "relative"
    assert judged["error"] > 0.1
