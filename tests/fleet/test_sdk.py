"""The fleet as one client: five devices that are killed, drained, cut off, hung and brought back lose no call.

`make test-fleet` runs as many calls as the acceptance asks for; a plain run fewer.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.fleet.trust import Authority, Trusted
from tests import onnx_models
from tests.e2e.daemon import Daemon
from tests.fleet import network
from tests.fleet.network import Network

pytestmark = pytest.mark.skipif(bool(network.missing()), reason=network.missing() or "-")

CALLS = int(os.environ.get("FLEET_CALLS", "300"))
IS_WHOLE = CALLS >= 5000
WARM_UP = max(150, CALLS // 6)
DEVICES = ("one", "two", "three", "four", "five")
EVEN_LAYERS = 96
UNEVEN_LAYERS = 256  # so long that all that comes on top is little beside it, at both speeds


class Caller:
    """The program that calls, on the host `caller`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def order(self, **words: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the caller ended"
        return dict(json.loads(line))

    def wait_for(self, devices: int) -> None:
        """Until so many devices can be called."""
        self.order(devices=devices)
        assert len(self.hear()["devices"]) == devices

    def call(
        self, calls: int, disturb: Callable[[], None] | None = None, *, model: str = "mlp", at_once: int = 8
    ) -> None:
        """Calls, all of which must be answered rightly while `disturb` does what it does."""
        self.order(model=model, calls=calls, at_once=at_once)
        assert self.hear() == {"running": True}
        if disturb is not None:
            disturb()
        report = self.hear()
        print(report)
        assert report["outcomes"] == {"right": calls}


class Lan:
    """Five daemons, the network they are on, and whom the caller trusts."""

    def __init__(self, hosts: Network, daemons: dict[str, Daemon], folder: Path, token: str) -> None:
        self.hosts = hosts
        self.daemons = daemons
        self._folder = folder
        self.token = token

    @contextmanager
    def caller(self) -> Iterator[Caller]:
        """A caller that trusts the CA of each device."""
        paths = [daemon.state / "tls" / "ca.pem" for daemon in self.daemons.values()]
        known = tuple(Authority(fingerprint=str(path), certificate=path.read_text()) for path in paths)
        home = self._folder / "home"
        (home / "inferd").mkdir(parents=True, exist_ok=True)
        (home / "inferd" / "trust.json").write_bytes(msgspec.json.encode(Trusted(authorities=known)))
        env = {**os.environ, "XDG_CONFIG_HOME": str(home), "INFERD_TOKEN": self.token}
        process = self.hosts["caller"].popen(
            sys.executable, "-m", "tests.fleet.sdk_caller",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env,
        )  # fmt: skip
        with process:
            try:
                yield Caller(process)
                assert process.stdin is not None
                process.stdin.close()
                assert process.wait(60) == 0
            finally:
                process.kill()

    def answered(self, model: str) -> dict[str, int]:
        """Inferences that each device has done."""
        return {name: inferences(daemon, model) for name, daemon in self.daemons.items()}

    def spread(self, caller: Caller, model: str, calls: int) -> dict[str, int]:
        """How calls are shared out."""
        before = self.answered(model)
        caller.call(calls, model=model)
        return {name: count - before[name] for name, count in self.answered(model).items()}


def inferences(daemon: Daemon, model: str) -> int:
    with daemon.client() as client:
        (stats,) = client.stats(model)["model_stats"]
    return int(stats["inference_stats"]["success"]["count"])


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """All five up and announced; `work` takes three times as long on the fifth, `mlp` nowhere long."""
    folder = tmp_path_factory.mktemp("lan")
    with ExitStack() as stack:
        hosts = stack.enter_context(Network(*DEVICES, "caller", "fake"))
        daemons: dict[str, Daemon] = {}
        for name in DEVICES:
            daemon = hosts[name].daemon(folder / name, args=("--lan",))
            onnx_models.mlp(daemon.models / "mlp" / "1" / "model.onnx")
            onnx_models.slow(daemon.models / "even" / "1" / "model.onnx", layers=EVEN_LAYERS, width=256)
            layers = UNEVEN_LAYERS * (3 if name == "five" else 1)
            onnx_models.slow(daemon.models / "uneven" / "1" / "model.onnx", layers=layers, width=256)
            daemons[name] = daemon
        first = daemons["one"]
        made = first.cli("token", "create", "app", "--scopes", "infer,read", "--state", str(first.state), "--json")
        assert made.returncode == 0, made.stderr
        for daemon in daemons.values():
            if daemon is not first:
                shutil.copytree(first.state, daemon.state)
            stack.callback(daemon.stop)
            daemon.start(wait=False)
        for daemon in daemons.values():
            daemon.wait_ready()
        yield Lan(hosts, daemons, folder, str(json.loads(made.stdout)["token"]))


def test_no_call_is_lost(lan: Lan) -> None:
    """Whatever happens to single devices: every call is answered, and rightly; who comes back gets calls again."""
    part = CALLS // 5
    one, two, four = lan.daemons["one"], lan.daemons["two"], lan.daemons["four"]

    def kill() -> None:
        one.kill()
        one.start()

    def drain() -> None:
        assert two.stop() == 0
        two.start()

    def hang() -> None:
        assert four.process is not None
        four.process.send_signal(signal.SIGSTOP)

    with lan.caller() as caller:
        caller.wait_for(5)
        caller.call(part)
        caller.call(part, kill)
        caller.wait_for(5)
        caller.call(part, drain)
        caller.wait_for(5)
        caller.call(part, lan.hosts["three"].leave)
        lan.hosts["three"].rejoin()
        caller.wait_for(5)
        caller.call(CALLS - 4 * part, hang)
        assert four.process is not None
        four.process.send_signal(signal.SIGCONT)
        caller.wait_for(5)
        shares = lan.spread(caller, "mlp", 200)
        assert all(shares.values()), shares


def test_equal_devices_get_equal_shares(lan: Lan) -> None:
    """Each within 15 % of even; a few calls on a busy machine can only show that nobody is left out."""
    with lan.caller() as caller:
        caller.wait_for(5)
        lan.spread(caller, "even", WARM_UP)
        shares = lan.spread(caller, "even", CALLS)
    print(shares)
    least, most = (0.85, 1.15) if IS_WHOLE else (0.05, 4)
    assert all(least <= share / (CALLS / 5) <= most for share in shares.values()), shares


def test_a_slow_device_gets_its_proportion(lan: Lan) -> None:
    """One that takes three times as long gets about a third of what the others get; of a few calls, less."""
    with lan.caller() as caller:
        caller.wait_for(5)
        lan.spread(caller, "uneven", WARM_UP)
        shares = lan.spread(caller, "uneven", CALLS // 2)
    print(shares)
    slow = shares.pop("five") / (sum(shares.values()) / 4)
    assert 0.24 <= slow <= 0.45 if IS_WHOLE else slow < 1, slow


def test_an_impostor_gets_no_request(lan: Lan) -> None:
    """A device that takes the name of another one is found and knocked at, and hears nothing but the start of TLS."""
    with lan.caller() as caller:
        caller.wait_for(5)
        device = lan.hosts["fake"].popen(
            sys.executable, "-m", "tests.fleet.impostor", "one", lan.hosts["fake"].address,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        with device:
            assert device.stdout is not None
            knocked = json.loads(device.stdout.readline())
            assert knocked == {"handshake": False, "heard": 0}
            caller.call(CALLS // 6)
            told, _ = device.communicate(timeout=60)
    assert all(json.loads(line) == {"handshake": False, "heard": 0} for line in told.splitlines())
