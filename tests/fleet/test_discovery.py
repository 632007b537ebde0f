"""Daemons that announce themselves on a real network, found and trusted by the commands that people use.

Also with avahi, which is what the rest of the world finds services with.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import onnx_models
from tests.e2e.daemon import INFERD, Daemon, until
from tests.fleet import avahi, network
from tests.fleet.network import Host, Network
from tests.fleet.watch import Watcher

pytestmark = pytest.mark.skipif(bool(network.missing()), reason=network.missing() or "-")
long = pytest.mark.skipif(int(os.environ.get("FLEET_CALLS", "0")) < 5000, reason="takes long; make test-fleet runs it")

NAMES = ("one", "two", "three", "four", "five")
PATHS = ("/v2", "/v2/models/mlp", "/v2/models/mlp/infer", "/v2/repository/index", "/v2/models/stats", "/metrics")
STRANGER = """
import http.client, ssl, sys
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
for path in sys.argv[2:]:
    connection = http.client.HTTPSConnection(sys.argv[1], 8470, context=context, timeout=20)
    connection.request("POST" if path.endswith(("infer", "index")) else "GET", path, b"")
    print(path, connection.getresponse().status)
"""


def device(host: Host, folder: Path, **env: str) -> Daemon:
    """A daemon for the LAN with one small model, not yet started."""
    onnx_models.mlp(folder / "models" / "mlp" / "1" / "model.onnx")
    return host.daemon(folder, args=("--lan",), env=env)


def inferd(host: Host, home: Path, *args: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """An inferd command on a host, by somebody with a configuration folder of their own."""
    return host.run(INFERD, *args, check=check, env={**os.environ, "XDG_CONFIG_HOME": str(home), **env})


def discover(host: Host, home: Path, *names: str, **env: str) -> dict[str, dict[str, object]]:
    """What `inferd discover` finds there, by name; on a busy machine it may have to listen longer to reach these."""
    found: dict[str, dict[str, object]] = {}
    for listen_s in (2, 5, 15, 30):
        found = listen(host, home, listen_s, **env)
        if all(name in found and found[name]["reachable"] for name in names):
            break
    return found


def listen(host: Host, home: Path, listen_s: float, **env: str) -> dict[str, dict[str, object]]:
    """What is found within this time, if anything."""
    done = inferd(host, home, "discover", "--json", "--timeout", str(listen_s), check=False, **env)
    assert done.returncode in (0, 3), done.stderr
    return {found["name"]: found for found in json.loads(done.stdout)}


def trust(host: Host, home: Path, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`inferd trust`, with time to hear of the device."""
    return inferd(host, home, "trust", *args, "--timeout", "60", check=check)


@pytest.fixture
def lan() -> Iterator[Network]:
    """Two hosts for devices, and one for clients."""
    with Network("one", "two", "client") as made:
        yield made


def test_a_device_is_found_trusted_and_asked(lan: Network, tmp_path: Path) -> None:
    """From first contact to its list of models; a stranger gets health alone; a reinstalled device is refused."""
    client, home = lan["client"], tmp_path / "home"
    with Watcher(client, tmp_path / "events") as watcher:
        with device(lan["one"], tmp_path / "one") as daemon:
            watcher.wait_for("one")
            token = daemon.token()
            shown = json.loads(daemon.cli("tls", "show", "--state", str(daemon.state), "--json").stdout)["fingerprint"]
            until(lambda: watcher.devices()["one"]["state"] == "ready")

            found = discover(client, home, "one", INFERD_TOKEN=token)["one"]
            assert (found["fingerprint"], found["trusted"], found["reachable"]) == (shown, False, True)
            assert found["models"] is None, "a device that is not trusted is asked nothing"

            refused = trust(client, home, "one", "--fingerprint", "ab" * 32, check=False)
            assert refused.returncode == 3, refused.stderr
            assert shown in refused.stderr
            trust(client, home, "one", "--fingerprint", shown.upper())
            assert "already" in trust(client, home, "one", "--yes").stdout
            found = discover(client, home, "one", INFERD_TOKEN=token)["one"]
            assert (found["trusted"], found["models"]) == (True, ["mlp"])

            answers = client.python("-c", STRANGER, lan["one"].address6, "/v2/health/live", *PATHS).stdout.splitlines()
            assert answers == ["/v2/health/live 200", *(f"{path} 401" for path in PATHS)]
        watcher.wait_for()
        assert [each.get("state") for each in watcher.events()][-2:] == ["draining", None], "a goodbye before the end"

        shutil.rmtree(tmp_path / "one" / "state")
        with device(lan["one"], tmp_path / "one"):
            watcher.wait_for("one")
            found = discover(client, home, "one", INFERD_TOKEN=token)["one"]
            assert found["trusted"] is False
            assert "shows another certificate" in str(found["problem"])
            refused = trust(client, home, "one", "--yes", check=False)
            assert (refused.returncode, "--replace" in refused.stderr) == (3, True)
            trust(client, home, "one", "--yes", "--replace")
            assert discover(client, home, "one")["one"]["trusted"] is True


def test_a_fleet_is_trusted_by_its_authority(lan: Network, tmp_path: Path) -> None:
    """A certificate issued elsewhere serves the device; whoever trusts the CA needs no pin."""
    client, home, office = lan["client"], tmp_path / "home", str(tmp_path / "office")
    ca = tmp_path / "fleet.pem"
    ca.write_text(inferd(client, home, "tls", "ca", "export", "--state", office).stdout)
    out = tmp_path / "for-one"
    inferd(client, home, "tls", "ca", "issue", "one", "--address", "10.97.0.1", "--state", office, "--out", str(out))
    inferd(client, home, "trust", "--ca", str(ca))
    own = {"INFERD_TLS_CERT": str(out / "tls.crt"), "INFERD_TLS_KEY": str(out / "tls.key")}
    with device(lan["one"], tmp_path / "one", **own) as fleet, device(lan["two"], tmp_path / "two"):
        token = fleet.token()
        found = discover(client, home, "one", "two", INFERD_TOKEN=token)
        assert found["one"]["models"] == ["mlp"]
        assert (found["two"]["trusted"], found["two"]["models"]) == (False, None)


def test_of_two_with_one_name_one_takes_another(lan: Network, tmp_path: Path) -> None:
    """Started at once, both are found in the end, under different names."""
    daemons = [device(lan[name], tmp_path / name, INFERD_LAN_NAME="camera") for name in ("one", "two")]
    with Watcher(lan["client"], tmp_path / "events") as watcher:
        try:
            for daemon in daemons:
                daemon.start(wait=False)
            devices = watcher.wait_for("camera", "camera-2", timeout_s=120)
            assert len({each["instance_id"] for each in devices.values()}) == 2
        finally:
            for daemon in daemons:
                daemon.stop()


@long
def test_changed_addresses_are_followed(lan: Network, tmp_path: Path) -> None:
    """A new address is announced and an old one is not any more; so is an interface that comes back."""
    one = lan["one"]
    with Watcher(lan["client"], tmp_path / "events") as watcher, device(one, tmp_path / "one"):
        watcher.wait_for("one")
        one.run("ip", "address", "del", f"{one.address}/24", "dev", "eth0")
        one.run("ip", "address", "add", "10.97.0.101/24", "dev", "eth0")
        until(lambda: watcher.devices()["one"]["addresses"] == ["10.97.0.101", one.address6], 30)
        one.run("ip", "link", "set", "eth0", "down")
        one.run("ip", "link", "set", "eth0", "up")
        one.run("ip", "address", "add", "10.97.0.102/24", "dev", "eth0")
        until(lambda: "10.97.0.102" in watcher.devices()["one"]["addresses"], 30)


@long
@pytest.mark.timeout(240)
def test_five_devices_within_two_seconds_and_through_a_partition(tmp_path: Path) -> None:
    """A newcomer finds five within 2 s; what one says while it is cut off is heard after its return, unasked."""
    with Network(*NAMES, "client") as lan, contextlib.ExitStack() as stack:
        daemons = [stack.enter_context(device(lan[name], tmp_path / name)) for name in NAMES]
        found = listen(lan["client"], tmp_path / "home", 2)
        assert sorted(found) == sorted(NAMES)
        begin = time.monotonic()
        watcher = stack.enter_context(Watcher(lan["client"], tmp_path / "events"))
        before = watcher.wait_for(*NAMES)["five"]["models_digest"]
        print(f"five devices found in {time.monotonic() - begin:.2f} s, the start of the command included")

        lan["five"].leave()
        shutil.copytree(daemons[4].models / "mlp", daemons[4].models / "another")
        own = stack.enter_context(Watcher(lan["five"], tmp_path / "own-events"))
        until(lambda: own.devices().get("five", {}).get("models_digest", before) != before)
        lan["five"].rejoin()
        until(lambda: watcher.devices()["five"]["models_digest"] != before, 120)


@pytest.mark.skipif(bool(avahi.MISSING), reason=f"not installed: {avahi.MISSING}")
def test_avahi_sees_and_resolves_the_devices(lan: Network, tmp_path: Path) -> None:
    """By the service's own type and by the subtype for any client, also with another avahi beside the daemon."""
    one = lan["one"]
    with (
        avahi.running(one, tmp_path / "avahi-one"),
        avahi.running(lan["client"], tmp_path / "avahi-client") as there,
        device(one, tmp_path / "one"),
    ):
        for service in ("_inferd._tcp", "_v2._sub._inferd._tcp"):
            until(lambda service=service: there.browse(service), 90)
            for _, interface, _, name, kind, domain, host, address, port, txt in there.browse(service):
                assert (interface, name, kind, domain, port) == ("eth0", "one", "_inferd._tcp", "local", "8470")
                assert host.startswith("inferd-")
                assert address in (one.address, one.address6)
                assert '"proto=v2"' in txt
        with Watcher(lan["client"], tmp_path / "events") as watcher:
            watcher.wait_for("one")
