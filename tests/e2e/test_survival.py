"""What happens at night: callers vanish, senders stall, descriptors run out, disks fill, processes are killed."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from inferd import Client
from inferd.errors import ConnectionFailed, InferdError, NotReady
from tests import onnx_models
from tests.e2e.daemon import Daemon, until
from tests.e2e.raw import answer, connected, infer_bytes, request

pytestmark = pytest.mark.timeout(180)


def test_callers_that_vanish_harm_nobody(fresh: Daemon) -> None:
    """200 clients leave in mid-request while 20 others get every answer, and every answer is theirs."""
    onnx_models.slow(fresh.models / "slow" / "1" / "model.onnx", layers=64, width=256)
    fresh.start()
    rng = np.random.default_rng(1)

    def vanish(index: int) -> None:
        data = infer_bytes("slow", "x", np.ones((1, 256), np.float32))
        with connected(str(fresh.socket), fresh.ca) as connection:
            connection.sendall(data if index % 2 else data[: len(data) // 2])

    def stay(seed: int) -> int:
        right = 0
        with fresh.client() as client:
            for row in np.random.default_rng(seed).normal(size=(10, 1, 64)).astype(np.float32):
                got = client.infer("mlp", {"x": row})["probabilities"]
                right += bool(np.allclose(got, onnx_models.mlp_reference(row), atol=0.02))
        return right

    with ThreadPoolExecutor(40) as pool:
        leaving = [pool.submit(vanish, i) for i in range(200)]
        staying = [pool.submit(stay, int(seed)) for seed in rng.integers(0, 1 << 30, 20)]
        assert [f.result() for f in staying] == [10] * 20
        for future in leaving:
            future.result()
    with fresh.client() as client:
        client.infer("slow", {"x": np.ones((1, 256), np.float32)})


def test_a_model_that_kills_the_daemon_as_it_loads(fresh: Daemon) -> None:
    """The next start leaves it out and says why; the other models serve, and an explicit load tries it again."""
    onnx_models.looping(fresh.models / "never" / "1" / "model.onnx", always=1 << 40)
    fresh.start(wait=False)
    markers = fresh.state / "cache" / "loading"
    until(lambda: any(b'"never"' in marker.read_bytes() for marker in markers.glob("*.json")))
    with fresh.client() as client:
        assert ("never", "LOADING") in [(each["name"], each["state"]) for each in client.index()]
    fresh.kill()
    fresh.start()
    with fresh.client() as client:
        with pytest.raises(NotReady, match=r"died while loading this version the last time .* load it explicitly"):
            client.infer("never", {"turns": np.array([1])})
        assert client.infer("mlp", {"x": np.ones((1, 64), np.float32)})
    onnx_models.looping(fresh.models / "never" / "1" / "model.onnx")
    with fresh.client() as client:
        client.load("never")
        assert client.infer("never", {"turns": np.array([1])})


def test_slow_senders_are_cut_off(fresh: Daemon) -> None:
    """A header or a body that trickles in is cut off at its time limit; others are served meanwhile."""
    fresh._env.update(INFERD_SERVER_HEADER_TIMEOUT_S="2", INFERD_SERVER_BODY_TIMEOUT_S="2")
    fresh.start()
    data = infer_bytes("mlp", "x", np.zeros((1, 64), np.float32))
    for start in (data[:20], data[:-100]):
        with connected(str(fresh.socket), fresh.ca) as slow, connected(str(fresh.socket), fresh.ca) as quick:
            slow.sendall(start)
            quick.sendall(data)
            assert answer(quick)[0] == 200
            ended = slow.recv(4096)
            assert not ended or ended.startswith(b"HTTP/1.1 408"), ended


def test_descriptors_run_out_and_come_back(fresh: Daemon) -> None:
    """With no file descriptor left the daemon neither dies nor spins, and serves again when some come back."""
    fresh._preexec_fn = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))
    fresh.start()
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(150)]
    try:
        for member in crowd:
            member.setblocking(False)
            try:
                member.connect(str(fresh.socket))
            except BlockingIOError:
                break
        assert fresh.process is not None
        until(lambda: fresh.open_files() >= 95)
        before = cpu_s(fresh.process.pid)
        time.sleep(1.0)
        assert cpu_s(fresh.process.pid) - before < 0.7
    finally:
        for member in crowd:
            member.close()
    with fresh.client() as client:
        until(lambda: works(client))


def test_a_garbage_model_explains_itself(fresh: Daemon) -> None:
    """A broken file is FAILED with a reason; the good model beside it serves."""
    broken = fresh.models / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(os.urandom(4096))
    fresh.start()
    with fresh.client() as client:
        until(lambda: state(client, "broken") == "FAILED")
        [entry] = [m for m in client.index() if m["name"] == "broken"]
        assert entry["reason"]
        assert not client.is_ready()
        client.infer("mlp", {"x": np.zeros((1, 64), np.float32)})


def test_a_half_copied_model_stays_invisible(fresh: Daemon) -> None:
    """A file that is still growing is not loaded; once it is whole, it serves without being asked."""
    whole = onnx_models.mlp(fresh.folder / "whole.onnx", features=8).read_bytes()
    fresh.start()
    target = fresh.models / "late" / "1" / "model.onnx"
    target.parent.mkdir(parents=True)
    pause_s, begin = 0.0, time.monotonic()
    with fresh.client() as client, target.open("wb", buffering=0) as file:
        for start in range(0, len(whole), len(whole) // 8):
            file.write(whole[start : start + len(whole) // 8])
            pause_s, begin = max(pause_s, time.monotonic() - begin), time.monotonic()
            time.sleep(0.15)
            found = [m for m in client.index() if m["name"] == "late"]
            pause_s = max(pause_s, time.monotonic() - begin)
            if pause_s < 0.45:  # after half a second it may be taken, which this machine may make of any pause
                assert all(m["state"] == "UNAVAILABLE" and "changing" in m["reason"] for m in found)
        until(lambda: state(client, "late") == "READY")
        client.infer("late", {"x": np.zeros((1, 8), np.float32)})


def test_a_new_version_takes_over_without_a_failed_request(fresh: Daemon) -> None:
    """While requests keep coming, a version is installed by rename; every request is answered by the old or the new."""
    fresh.start()
    stop, failures, versions = threading.Event(), [], set()

    def ask() -> None:
        with fresh.client() as client:
            while not stop.is_set():
                try:
                    versions.add(client.infer("mlp", {"x": np.zeros((1, 64), np.float32)}).model_version)
                except InferdError as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        onnx_models.mlp(fresh.folder / "beside" / "model.onnx", hidden=64)
        (fresh.folder / "beside").rename(fresh.models / "mlp" / "2")
        until(lambda: "2" in versions)
        (fresh.models / "mlp" / "3").mkdir()
        (fresh.models / "mlp" / "3" / "model.onnx").write_bytes(b"garbage")
        with fresh.client() as client:
            until(lambda: any(m["name"] == "mlp" and m.get("reason") and m["version"] == "3" for m in client.index()))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert versions == {"1", "2"}


def test_sigterm_under_load_answers_what_was_accepted(fresh: Daemon) -> None:
    """Every request that reached the daemon before SIGTERM is answered; later ones are refused, never lost."""
    onnx_models.slow(fresh.models / "slow" / "1" / "model.onnx", layers=512, width=512)
    fresh._env.update(INFERD_SERVER_DRAIN_S="100")  # a busy machine may take more than half a minute
    fresh.start()
    data = infer_bytes("slow", "x", np.ones((4, 512), np.float32))

    def ask(sent: threading.Barrier) -> int:
        with connected(str(fresh.socket), fresh.ca, timeout_s=100) as connection:
            connection.sendall(request("GET", "/v2/health/live"))
            assert answer(connection)[0] == 200
            connection.sendall(data)
            sent.wait()
            return answer(connection)[0]

    sent = threading.Barrier(33)
    with ThreadPoolExecutor(32) as pool:
        asked = [pool.submit(ask, sent) for _ in range(32)]
        sent.wait()
        with fresh.client() as client:
            until(lambda: sum(load(client)) >= 32)
            _, under_way = load(client)
            assert fresh.process is not None
            fresh.process.send_signal(signal.SIGTERM)
        assert under_way > 0
        assert [f.result() for f in asked] == [200] * 32
    assert fresh.stop(100) == 0
    assert not fresh.socket.exists()
    assert not fresh.ca.exists()


def test_kill_9_and_restart_on_the_stale_socket(fresh: Daemon) -> None:
    """After kill -9 the socket file is stale; the next start takes it over, with the same CA and tokens."""
    fresh.start()
    token, ca = fresh.token(), fresh.ca.read_bytes()
    fresh.kill()
    assert fresh.socket.exists()
    fresh.start()
    assert fresh.ca.read_bytes() == ca
    with fresh.client(token=token) as client:
        client.infer("mlp", {"x": np.zeros((1, 64), np.float32)})


@pytest.mark.parametrize("shared", ["socket", "state"])
def test_two_daemons_share_nothing(fresh: Daemon, shared: str) -> None:
    """A second daemon on a socket or a state folder in use stops with an error that names it; the first serves on."""
    fresh.start()
    url = fresh.url if shared == "socket" else f"unix:{fresh.folder}/other.sock"
    state = fresh.state if shared == "state" else fresh.folder / "other"
    done = fresh.cli("serve", "--models", str(fresh.models), "--state", str(state), "--listen", url)
    assert done.returncode != 0
    assert str(fresh.socket if shared == "socket" else fresh.state) in done.stderr
    with fresh.client() as client:
        assert works(client)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB, which only root can mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_no_state(fresh: Daemon, small_disk: Path) -> None:
    """With the disk full a token cannot be made, which is said; the tokens that were there still work."""
    fresh.state = small_disk / "state"
    fresh.start()
    token = fresh.token()
    filler = small_disk / "filler"
    fill(filler)
    before = (fresh.state / "tokens.json").read_bytes()
    done = fresh.cli("token", "create", "more", "--scopes", "infer", "--state", str(fresh.state))
    assert done.returncode != 0
    assert "No space left" in done.stderr
    assert (fresh.state / "tokens.json").read_bytes() == before
    with fresh.client(token=token) as client:
        assert works(client)
    filler.unlink()
    fresh.token("again")


def test_sighup_reloads_without_a_dropped_connection(fresh: Daemon) -> None:
    """SIGHUP takes a new configuration and keeps connections; a broken configuration keeps the old one and says so."""
    config = fresh.folder / "inferd.toml"
    config.write_text("[metrics]\nopen = false\n")
    fresh._args = ("--config", str(config))
    fresh.start()
    assert fresh.process is not None
    with connected(str(fresh.socket), fresh.ca) as kept:
        config.write_text("[metrics]\nopen = tru\n")
        fresh.process.send_signal(signal.SIGHUP)
        until(lambda: "not reloaded, the old configuration goes on" in fresh.log())
        config.write_text("[log]\nlevel = 'debug'\nformat = 'human'\n")
        fresh.process.send_signal(signal.SIGHUP)
        until(lambda: "reloaded; changed: log.level, log.format" in fresh.log())
        kept.sendall(request("GET", "/v2/health/ready"))
        assert answer(kept)[0] == 200


def fill(path: Path) -> None:
    """Write to a file until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass


def works(client: object) -> bool:
    """Whether one inference goes through now."""
    try:
        client.infer("mlp", {"x": np.zeros((1, 64), np.float32)}, timeout_s=15)  # type: ignore[attr-defined]
    except (InferdError, OSError):
        return False
    return True


def load(client: Client) -> tuple[int, int]:
    """Requests of the model `slow` that were answered, and then those of any model that wait or run."""
    answered = client.stats("slow")["model_stats"][0]["inference_stats"]["success"]["count"]
    figures = dict(line.rsplit(" ", 1) for line in client.metrics().splitlines() if not line.startswith("#"))
    return int(answered), int(float(figures["inferd_queued_jobs"]) + float(figures["inferd_running_jobs"]))


def state(client: object, model: str) -> str | None:
    """The state that the index tells of a model."""
    try:
        return next(
            (m["state"] if m["state"] != "UNAVAILABLE" else "FAILED" for m in client.index() if m["name"] == model),
            None,
        )  # type: ignore[attr-defined]
    except ConnectionFailed:
        return None


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
