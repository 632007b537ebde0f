"""Envoy before devices on a network of their own, while they are killed, hung, drained, cut off and brought back.

`make test-fleet` runs as many calls as the acceptance asks for, through five devices; a plain run fewer, through two.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import onnx_models
from tests.e2e.daemon import INFERD, Daemon, until
from tests.fleet import network
from tests.fleet.fleet import CALLER, Fleet

CALLS = int(os.environ.get("FLEET_CALLS", "300"))
DEVICES = ("d1", "d2", "d3", "d4", "d5")
CONCURRENCY, LAYERS, STEP = 20, 256, 300
# Where few calls are made no device hangs, and a busy machine may be slow.
PATIENCE_S = "2" if CALLS >= 5000 else "10"
LISTEN = "tcp:127.0.0.1:8471?tls=off&insecure=on"
URL = "http://127.0.0.1:8471"
ROWS = np.random.default_rng(7).normal(size=(64, 64)).astype(np.float32)

pytestmark = [
    pytest.mark.skipif(bool(network.missing()), reason=network.missing() or "-"),
    pytest.mark.timeout(600),
]
whole = pytest.mark.skipif(CALLS < 5000, reason="takes minutes: make test-fleet")


def mlp(_name: str, models: Path) -> None:
    onnx_models.mlp(models / "mlp" / "1" / "model.onnx")


def environment(fleet: Fleet) -> dict[str, str]:
    """The callers' token, and where `ip` is."""
    return {"INFERD_TOKEN": fleet.token, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@contextlib.contextmanager
def gateway(fleet: Fleet, folder: Path) -> Iterator[Path]:
    """`inferd gateway` on the callers' host, with all devices in it; its log. Ends with 0 when it is told to."""
    log = folder / "gateway.log"
    command = (
        INFERD,
        "gateway",
        "--listen",
        LISTEN,
        "--trust",
        str(fleet.trust),
        "--folder",
        str(folder / "gateway"),
        "--patience",
        PATIENCE_S,
    )
    with log.open("w") as out:
        process = fleet.lan[CALLER].popen(*command, stdout=out, stderr=out, env=environment(fleet))
    try:
        until(lambda: f"{len(fleet.names)} devices: " in log.read_text(), timeout_s=120)
        yield log
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def calls(fleet: Fleet, folder: Path, model: str, inputs: np.ndarray) -> Iterator[dict[str, Any]]:
    """Calls through the gateway for as long as the block lasts, at least so many; what came of them, afterwards."""
    outputs = np.stack([answer(fleet, model, inputs[row : row + 1]) for row in range(len(inputs))])
    np.savez(folder / "expected.npz", inputs=inputs, outputs=outputs)
    args = (URL, model, str(folder / "expected.npz"), str(CALLS), str(CONCURRENCY))
    process = fleet.lan[CALLER].popen(
        sys.executable, "-m", "tests.fleet.gateway_caller", *args, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=environment(fleet), cwd=Path(__file__).parents[2],
    )  # fmt: skip
    told: dict[str, Any] = {}
    with process:
        try:
            yield told
            out, _ = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 0
    told.update(json.loads(out))
    print(told)


def answer(fleet: Fleet, model: str, row: np.ndarray) -> np.ndarray:
    """What a device itself makes of an input."""
    (found,) = fleet.call("d1", lambda client: client.infer(model, {"x": row})).values()
    return np.asarray(found)


class Progress:
    """How far the calls are, by what devices have answered that nothing befalls."""

    def __init__(self, fleet: Fleet, *steady: str) -> None:
        self._fleet = fleet
        self._steady = steady

    def wait(self, more: int = STEP) -> None:
        """Until the steady ones have answered so many more."""
        goal = self._count(*self._steady) + more
        until(lambda: self._count(*self._steady) >= goal, timeout_s=120)

    def wait_for(self, *names: str) -> None:
        """Until each of these answers again."""
        for name in names:
            before = self._count(name)
            until(lambda name=name, before=before: self._count(name) > before, timeout_s=120)  # type: ignore[misc]

    def _count(self, *names: str) -> int:
        return sum(self._fleet.answered("mlp", *names).values())


def test_the_gateway_follows_the_lan(tmp_path: Path) -> None:
    """Devices are found and called, one that stops is missed by nobody, one in its place that lies gets no call."""
    with Fleet(tmp_path, "d1", "d2", models=mlp) as fleet, gateway(fleet, tmp_path) as log:
        progress = Progress(fleet, "d1")
        with calls(fleet, tmp_path, "mlp", ROWS[:8]) as told:
            progress.wait_for("d1", "d2")
            assert fleet["d2"].stop() == 0
            progress.wait(50)
            with impostor(fleet, "d2") as heard:
                until(lambda: "d2: " in log.read_text(), timeout_s=120)
                progress.wait(50)
        assert (told["failures"], told["wrong"]) == ({}, 0), log.read_text()
        assert heard
        assert not any(line["heard"] for line in heard), heard


def test_for_somebody_elses_envoy(tmp_path: Path) -> None:
    """`--print` holds the devices of now in one piece, `--no-envoy` keeps files current; no token is in any of it."""
    with Fleet(tmp_path, "d1", models=mlp) as fleet:
        folder = tmp_path / "gateway"
        caller, env, base = fleet.lan[CALLER], environment(fleet), (INFERD, "gateway", "--trust", str(fleet.trust))
        process = caller.popen(*base, "--no-envoy", "--folder", str(folder), "--interface", "eth*", env=env)
        found = caller.run(*base, "--print", "--wait", "15", env=env).stdout
        (endpoint,) = json.loads(found)["static_resources"]["clusters"][0]["load_assignment"]["endpoints"]
        assert endpoint["lb_endpoints"][0]["endpoint"]["hostname"] == "d1"
        assert endpoint["lb_endpoints"][0]["metadata"]["filter_metadata"]["envoy.lb"] == {"models": ["mlp"]}
        endpoints = folder / "endpoints.json"
        until(lambda: endpoints.exists() and '"d1"' in endpoints.read_text(), timeout_s=120)
        # A dot is before the name of a file that is still being written.
        files = {path.name: path.read_text() for path in folder.glob("[!.]*")}
        assert sorted(files) == ["bootstrap.json", "clusters.json", "endpoints.json", "lock"]
        assert fleet.token not in found + "".join(files.values())
        process.terminate()
        assert process.wait(60) == 0


@contextlib.contextmanager
def impostor(fleet: Fleet, name: str) -> Iterator[list[dict[str, Any]]]:
    """Somebody on that device's host who announces the same name and has another certificate; what it heard."""
    host = fleet.lan[name]
    process = host.popen(
        sys.executable, "-m", "tests.fleet.impostor", name, host.address,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    heard: list[dict[str, Any]] = []
    with process:
        try:
            yield heard
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    heard += [json.loads(line) for line in out.splitlines()]


def send(daemon: Daemon, number: signal.Signals) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(number)


@whole
def test_nothing_is_lost_while_devices_fail(tmp_path: Path) -> None:
    """Killed, hung, drained, cut off and brought back under the calls: every call is answered, and rightly."""
    with Fleet(tmp_path, *DEVICES, models=mlp) as fleet, gateway(fleet, tmp_path) as log:
        progress = Progress(fleet, "d5")
        with calls(fleet, tmp_path, "mlp", ROWS) as told:
            progress.wait()
            fleet["d1"].kill()
            progress.wait()
            fleet.lan["d3"].leave()
            progress.wait()
            fleet["d1"].start()
            assert fleet["d2"].stop() == 0
            progress.wait()
            send(fleet["d4"], signal.SIGSTOP)
            progress.wait()
            fleet.lan["d3"].rejoin()
            fleet["d2"].start()
            send(fleet["d4"], signal.SIGCONT)
            progress.wait_for("d1", "d2", "d3", "d4")
        assert told["calls"] >= CALLS
        assert (told["failures"], told["wrong"]) == ({}, 0), log.read_text()
        assert told["slowest_s"] < 25  # three devices were away at once: patience for each, and a loaded machine


@whole
@pytest.mark.parametrize(("times", "least", "most"), [(1, 0.85, 1.15), (3, 0.25, 0.45)])
def test_shares(tmp_path: Path, times: int, least: float, most: float) -> None:
    """Equal devices get equal shares within 15 %; one that takes three times as long gets about a third of a share."""

    def slow(name: str, models: Path) -> None:
        onnx_models.slow(models / "slow" / "1" / "model.onnx", layers=LAYERS * (times if name == "d5" else 1))
        (models / "slow" / "model.toml").write_text("batch = 1\n")  # or many rows would take no longer than one

    with Fleet(tmp_path, *DEVICES, models=slow) as fleet, gateway(fleet, tmp_path):
        with calls(fleet, tmp_path, "slow", np.ones((1, 512), np.float32)) as told:
            before = fleet.answered("slow")
        counts = {name: count - before[name] for name, count in fleet.answered("slow").items()}
        print(counts)
        assert told["failures"] == {}
        last = counts.pop("d5")
        mean = sum(counts.values()) / len(counts)
        assert all(abs(count - mean) <= mean * 0.15 for count in counts.values()), counts
        assert least <= last / mean <= most, (last, counts)
