"""The installed service in a Debian under systemd, from the first caller to the purge. Each test builds on the last."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.agent.embedding.models import embedder
from tests.system.conftest import APT, DIGITS
from tests.system.container import Container

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("system")]

ROW = json.dumps([[[[0.0] * 8] * 8]])
CONFIG = "/etc/inferd/inferd.toml"
SERVICE, SOCKET = "inferd.service", "inferd.socket"
PYTHON = ("/opt/inferd/bin/python3", "-I")
DOORS = {"": "inferd", "grpc+": "grpc", "memory+": "memory"}


def ask(box: Container, user: str = "alice", *options: str, model: str = "digits") -> subprocess.CompletedProcess[str]:
    """One inference by the command line."""
    box.write("/tmp/row.json", ROW)
    command = ("inferd", "infer", model, "--input", "image=/tmp/row.json", *options)
    return box.run(*command, user=user, check=False)


def is_answered(box: Container, **more: str) -> bool:
    done = ask(box, **more)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{box.journal()}"
    return True


def end(callers: subprocess.Popen[str]) -> dict[str, object]:
    """What the callers saw."""
    said, _ = callers.communicate("", timeout=240)
    told = json.loads(said.splitlines()[-1])
    assert isinstance(told, dict)
    return told


def pid(box: Container) -> int:
    return int(box.property("MainPID"))


def restart(box: Container) -> None:
    """Restart the service, however often that was done within the last seconds."""
    box.run("systemctl", "reset-failed", SERVICE)
    box.run("systemctl", "restart", SERVICE)


def fails_to_restart(box: Container, said: str) -> None:
    """The service does not start, and the journal has the reason."""
    box.run("systemctl", "reset-failed", SERVICE)
    assert box.run("systemctl", "restart", SERVICE, check=False).returncode != 0
    box.until(lambda: said in box.journal())


def replace_lines(box: Container, path: str, **lines: str) -> None:
    """Put lines into sections of the configuration, by the section's name."""
    text = box.path(path).read_text()
    for section, line in lines.items():
        assert f"[{section}]\n" in text
        text = text.replace(f"[{section}]\n", f"[{section}]\n{line}\n")
    box.write(path, text)


def test_after_the_installation_only_the_socket_is_there(box: Container) -> None:
    """apt makes user and group, systemd listens, nothing runs, and the state is for nobody else."""
    assert box.property("ActiveState", SOCKET) == "active"
    assert box.property("ActiveState") == "inactive"
    assert box.run("stat", "-c", "%U:%G %a", "/run/inferd/inferd.sock").stdout == "inferd:inferd 660\n"
    assert box.run("stat", "-c", "%U %a", "/var/lib/inferd").stdout == "inferd 750\n"


def test_the_first_caller_starts_it(box: Container) -> None:
    """A member of group inferd calls; systemd starts the daemon, and the call is answered once the model is warm."""
    assert is_answered(box)
    assert box.property("ActiveState") == "active"
    assert box.property("StatusText").startswith("models: 1 ready")


def test_from_start_to_the_first_answer(box: Container, figures: list[str]) -> None:
    """How long a start takes is printed."""
    box.run("systemctl", "stop", SERVICE)
    began_s = time.monotonic()
    box.run("systemctl", "start", SERVICE)
    ready_s = time.monotonic() - began_s
    assert is_answered(box)
    answered_s = time.monotonic() - began_s
    figures.append(
        f"systemctl start: ready in {ready_s:.2f} s; first answer, by the command line, in {answered_s:.2f} s"
    )
    figures.append(box.run("systemd-analyze", "security", "--no-pager", SERVICE).stdout.splitlines()[-1])


def test_a_stranger_is_refused(box: Container) -> None:
    """Who is not in the group cannot open the socket, and is told why."""
    done = ask(box, "mallory")
    assert done.returncode == 4
    assert "join its group" in done.stderr


def test_both_engines_work_in_the_cage(box: Container) -> None:
    """ONNX Runtime and OpenVINO load, run and answer under all restrictions."""
    for engine in ("onnxruntime", "openvino"):
        box.run("cp", "-r", DIGITS, "/var/lib/inferd/incoming")
        box.write("/var/lib/inferd/incoming/model.toml", f'engine = "{engine}"\n')
        box.run("mv", "/var/lib/inferd/incoming", f"/var/lib/inferd/models/by-{engine}")
        box.until(lambda engine=engine: ask(box, model=f"by-{engine}").returncode == 0)  # type: ignore[misc]
        shown = box.run("inferd", "models", "--json", user="alice").stdout
        (found,) = [each for each in json.loads(shown) if each["name"] == f"by-{engine}"]
        assert engine in json.dumps(found["plan"])
    for engine in ("onnxruntime", "openvino"):
        box.run("rm", "-r", f"/var/lib/inferd/models/by-{engine}")


def test_a_reload_takes_what_is_right_and_refuses_what_is_wrong(box: Container) -> None:
    """A changed key counts at once; a mistake fails `systemctl reload` and changes nothing."""
    before = pid(box)
    good = box.path(CONFIG).read_text()
    replace_lines(box, CONFIG, log='level = "debug"')
    box.run("systemctl", "reload", SERVICE)
    box.until(lambda: "reloaded; changed: log.level" in box.journal())
    box.write(CONFIG, good + "\n[sever]\n")
    assert box.run("systemctl", "reload", SERVICE, check=False).returncode != 0
    box.until(lambda: "did you mean server?" in box.journal())
    box.write(CONFIG, good)
    box.run("systemctl", "reload", SERVICE)
    assert pid(box) == before
    assert is_answered(box)


def test_a_kill_is_survived(box: Container) -> None:
    """After kill -9 systemd starts it again, and who calls meanwhile waits."""
    before = pid(box)
    box.run("systemctl", "kill", "--kill-whom=main", "--signal=SIGKILL", SERVICE)
    assert is_answered(box)
    box.until(lambda: pid(box) not in (0, before))
    box.until(lambda: "status=9/KILL" in box.journal())


def test_the_watchdog_ends_what_hangs_and_leaves_what_idles(box: Container) -> None:
    """Without traffic it is fed by the daemon's own inferences; stopped, the daemon is killed and started again."""
    box.write(f"/etc/systemd/system/{SERVICE}.d/fast.conf", "[Service]\nWatchdogSec=10s\nTimeoutAbortSec=2s\n")
    box.run("systemctl", "daemon-reload")
    restart(box)
    before = pid(box)
    for _ in range(3):
        fed_us = box.property("WatchdogTimestampMonotonic")
        box.until(lambda last_us=fed_us: box.property("WatchdogTimestampMonotonic") != last_us)  # type: ignore[misc]
    assert pid(box) == before
    box.run("kill", "-STOP", str(before))
    box.until(lambda: pid(box) not in (0, before))
    assert is_answered(box)
    box.until(lambda: "Watchdog timeout" in box.journal(200))
    box.path(f"/etc/systemd/system/{SERVICE}.d/fast.conf").unlink()
    box.run("systemctl", "daemon-reload")
    restart(box)


def test_a_restart_loses_nobody(box: Container, callers: subprocess.Popen[str], figures: list[str]) -> None:
    """New connections all through three restarts: each is answered, rightly."""
    for _ in range(3):
        restart(box)
    told = end(callers)
    assert told["errors"] == []
    figures.append(
        f"three restarts under load: {told['answers']} calls answered, the slowest in {told['longest_s']:.2f} s"
    )


def test_tcp_without_a_network(box: Container) -> None:
    """systemd listens on TCP for a daemon that has no network: health is open, the rest wants a token; a listener that
    systemd does not have stops the start with what to do."""
    good = box.path(CONFIG).read_text()
    replace_lines(box, CONFIG, server='listen = ["unix:/run/inferd/inferd.sock", "tcp:127.0.0.1:8470"]')
    fails_to_restart(box, "add ListenStream= to inferd.socket")
    box.run("systemctl", "stop", SERVICE, SOCKET)
    box.write(f"/etc/systemd/system/{SOCKET}.d/tcp.conf", "[Socket]\nListenStream=127.0.0.1:8470\n")
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "reset-failed", SERVICE)
    box.run("systemctl", "start", SOCKET)
    token = json.loads(box.run("inferd", "token", "create", "app", "--scopes", "infer,read", "--json").stdout)["token"]
    box.run("systemctl", "start", SERVICE)
    remote = (
        "env",
        "INFERD_URL=https://127.0.0.1:8470",
        "INFERD_CA=/run/inferd/inferd.sock.ca.pem",
        "inferd",
        "models",
    )
    box.until(lambda: box.run(*remote, "--token", token, user="mallory", check=False).returncode == 0)
    refused = box.run(*remote, user="mallory", check=False)
    assert refused.returncode == 4
    assert "a token is needed" in refused.stderr
    box.run("systemctl", "stop", SERVICE, SOCKET)
    box.path(f"/etc/systemd/system/{SOCKET}.d/tcp.conf").unlink()
    box.write(CONFIG, good)
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", SOCKET)
    assert is_answered(box)


def test_grpc_and_shared_memory_in_the_cage(box: Container, figures: list[str]) -> None:
    """A gRPC socket that the daemon opens itself, objects under /dev/shm and memory that is handed over: all that works
    in the unit as it is, also with many regions beside hundreds of connections."""
    good = box.path(CONFIG).read_text()
    sockets = [f"{kind}unix:/run/inferd/{name}.sock" for kind, name in DOORS.items()]
    replace_lines(box, CONFIG, server=f"listen = {json.dumps(sockets)}")
    box.write(CONFIG, box.path(CONFIG).read_text() + "\n[shared_memory]\nsystem = true\n")
    token = json.loads(box.run("inferd", "token", "create", "grpc", "--scopes", "infer", "--json").stdout)["token"]
    restart(box)
    assert box.run("stat", "-c", "%U:%G %a", "/run/inferd/grpc.sock").stdout == "inferd:inferd 660\n"
    box.run(*PYTHON, "/mnt/tests/call_grpc.py", "/run/inferd/grpc.sock", token, user="alice")
    held = int(box.run(*PYTHON, "/mnt/tests/share_memory.py", str(pid(box))).stdout)
    assert held > 1024, "systemd's own limit would have done"
    figures.append(f"128 regions and 900 connections: {held} descriptors, of {box.property('LimitNOFILE')}")
    assert is_answered(box)
    box.write(CONFIG, good)
    restart(box)


def test_texts_are_embedded(box: Container, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The package has what reads a tokenizer."""
    embedder(tmp_path_factory.getbasetemp() / "box0" / "embedder")
    box.run("cp", "-r", "/mnt/next/embedder", "/var/lib/inferd/models/")
    ask_for_it = (*PYTHON, "/mnt/tests/embed.py", "embedder")
    box.until(lambda: box.run(*ask_for_it, user="alice", check=False).stdout == "4\n")
    box.run("rm", "-r", "/var/lib/inferd/models/embedder")


def test_a_drop_in_gives_it_the_network(box: Container) -> None:
    """With lan.conf the daemon itself listens on TCP, for gRPC too, beside the socket that systemd holds."""
    good = box.path(CONFIG).read_text()
    ports = '"tcp:127.0.0.1:8471", "grpc+tcp:127.0.0.1:8472"'
    replace_lines(box, CONFIG, server=f'listen = ["unix:/run/inferd/inferd.sock", {ports}]')
    folder = f"/etc/systemd/system/{SERVICE}.d"
    box.run("install", "-D", "-m", "644", "/usr/share/inferd/drop-ins/lan.conf", f"{folder}/lan.conf")
    box.run("systemctl", "daemon-reload")
    restart(box)
    assert is_answered(box)
    connect = "import socket; [socket.create_connection(('127.0.0.1', port), 20) for port in (8471, 8472)]"
    box.run("python3", "-c", connect, user="mallory")
    box.path(f"{folder}/lan.conf").unlink()
    box.write(CONFIG, good)
    box.run("systemctl", "daemon-reload")
    restart(box)


def test_credentials_reach_the_daemon(box: Container) -> None:
    """Tokens and a certificate in systemd's credential store count, though the daemon cannot read where they lie."""
    made = box.run("inferd", "token", "create", "given", "--scopes", "read", "--state", "/root/given", "--json")
    store = {"tokens.json": "/root/given/tokens.json"}
    store |= {"tls.crt": "/var/lib/inferd/tls/cert.pem", "tls.key": "/var/lib/inferd/tls/key.pem"}
    for name, source in store.items():
        box.run("install", "-D", "-m", "600", source, f"/etc/credstore/inferd.{name}")
    restart(box)
    token = json.loads(made.stdout)["token"]
    shown = box.run("inferd", "models", "--token", token, user="alice", check=False)
    assert shown.returncode == 0, shown.stderr + box.journal()
    box.write("/etc/credstore/inferd.tls.crt", "nonsense")
    fails_to_restart(box, f"/run/credentials/{SERVICE}/tls.crt")
    box.run("rm", *(f"/etc/credstore/inferd.{name}" for name in store))
    box.run("systemctl", "reset-failed", SERVICE)
    box.run("systemctl", "start", SERVICE)


def test_one_user_alone(box: Container) -> None:
    """`systemctl --user` runs a daemon of one's own, on a socket of one's own."""
    number = box.run("id", "-u", "mallory").stdout.strip()
    box.run("systemctl", "start", f"user@{number}.service")
    mine = ("env", f"XDG_RUNTIME_DIR=/run/user/{number}", "HOME=/home/mallory")
    box.run("cp", "-r", DIGITS, "/home/mallory/models")
    box.run("install", "-d", "-o", "mallory", "/home/mallory/.local/state/inferd/models/digits", user="mallory")
    box.run(*mine, "cp", "-r", f"{DIGITS}/.", "/home/mallory/.local/state/inferd/models/digits", user="mallory")
    box.run(*mine, "systemctl", "--user", "start", SOCKET, user="mallory")
    shown = box.run(*mine, "inferd", "models", user="mallory", check=False)
    assert shown.returncode == 0, shown.stderr + box.run("journalctl", "--no-pager", "-n50").stdout
    assert "digits" in shown.stdout
    box.run("systemctl", "stop", f"user@{number}.service")


def test_an_upgrade_keeps_what_was_edited(
    box: Container, package: Path, callers: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Under load, to a version with another conffile: no caller is lost, and the edited file stays as it was."""
    edited = box.path(CONFIG).read_text() + "# edited here\n"
    box.write(CONFIG, edited)
    before = pid(box)
    newer = next_version(package, tmp_path_factory.getbasetemp() / "box0")
    box.run(*APT, "install", f"/mnt/next/{newer.name}", timeout_s=600)
    told = end(callers)
    assert told["errors"] == []
    assert box.path(CONFIG).read_text() == edited
    assert "# of the next version" in box.path(f"{CONFIG}.dpkg-dist").read_text()
    assert pid(box) != before
    assert is_answered(box)


def next_version(package: Path, folder: Path) -> Path:
    """The same package with a higher version and another conffile."""
    tree = folder / "tree"
    subprocess.run(("dpkg-deb", "--raw-extract", package, tree), check=True)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    control.write_text("\n".join(f"{line}.99" if line.startswith("Version:") else line for line in lines) + "\n")
    with (tree / CONFIG.lstrip("/")).open("a") as config:
        config.write("# of the next version\n")
    made = folder / "inferd_next.deb"
    subprocess.run(("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, made), check=True, stdout=-3)
    shutil.rmtree(tree)
    return made


def test_a_removal_keeps_configuration_and_models(box: Container) -> None:
    """apt remove stops it and takes the program only."""
    box.run(*APT, "remove", "inferd")
    assert box.property("ActiveState", SOCKET) == "inactive"
    assert not box.path("/run/inferd/inferd.sock").exists()
    for kept in (CONFIG, "/var/lib/inferd/tokens.json", "/var/lib/inferd/models/digits/1/model.int8.onnx"):
        assert box.path(kept).exists()
    assert not box.path("/opt/inferd").exists()


def test_a_purge_leaves_the_models_unless_told(box: Container) -> None:
    """Secrets, caches and configuration go; models stay where nobody said that they may go."""
    box.run(*APT, "purge", "inferd")
    assert not any(
        box.path(gone).exists() for gone in ("/etc/inferd", "/var/cache/inferd", "/var/lib/inferd/tokens.json")
    )
    assert box.path("/var/lib/inferd/models/digits").exists()
    failed = box.run("systemctl", "--failed", "--no-legend", "--plain").stdout
    assert "inferd" not in failed
