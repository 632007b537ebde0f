"""`inferd doctor` beside a real daemon: well, then broken in ways that people break it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.daemon import Daemon
from tests.e2e.raw import free_port


def examine(daemon: Daemon, *args: str) -> tuple[int, list[dict[str, Any]]]:
    done = daemon.cli("doctor", "--models", str(daemon.models), "--state", str(daemon.state), "--json", *args)
    found = json.loads(done.stdout)
    assert done.returncode == found["exit_code"], done.stderr
    return done.returncode, found["findings"]


def about(findings: list[dict[str, Any]], check: str) -> list[tuple[str, str]]:
    return [(each["level"], each["text"]) for each in findings if each["check"] == check]


def test_a_patient_well_then_ill(fresh: Daemon) -> None:
    """All is well beside a daemon; an open token file, a folder that others write and a lost listener are errors."""
    others = (f"tcp:127.0.0.1:{free_port()}", f"memory+unix:{fresh.folder}/m.sock")
    listen = [part for url in (fresh.url, *others) for part in ("--listen", url)]
    with Daemon(fresh.folder, listen=others) as patient:
        patient.token()
        code, findings = examine(patient, *listen)
        assert code < 2, [each for each in findings if each["level"] == "error"]
        assert [level for level, _ in about(findings, "listeners")] == ["ok"] * 3
        assert {level for level, _ in about(findings, "certificates")} == {"ok"}
        assert all(each["fix"] for each in findings if each["level"] != "ok")

        (patient.state / "tokens.json").chmod(0o644)
        patient.state.chmod(0o777)
        code, findings = examine(patient, *listen, "--listen", f"tcp:127.0.0.1:{free_port()}")
        errors = {each["check"] for each in findings if each["level"] == "error"}
        assert (code, errors) == (2, {"secrets", "state", "listeners"})


def test_grpc_listeners_are_called(fresh: Daemon) -> None:
    """With TLS and without, on TCP and on sockets; where something else answers, or nobody, that is told."""
    ports, place = (free_port(), free_port()), fresh.folder / "g"
    listen = (
        f"grpc+tcp:127.0.0.1:{ports[0]}",
        f"grpc+tcp:127.0.0.1:{ports[1]}?tls=off&insecure=on",
        f"grpc+unix:{place}",
        f"grpc+unix:{place}2?tls=off",
    )
    with Daemon(fresh.folder, listen=listen) as patient:
        asked = [arg for url in (patient.url, *listen) for arg in ("--listen", url)]
        _, findings = examine(patient, *asked)
        told = about(findings, "listeners")
        assert [level for level, _ in told] == ["ok"] * 5
        assert [text.endswith("the daemon answers, by gRPC") for _, text in told] == [False, *[True] * 4]
        wrong = f"grpc+tcp:127.0.0.1:{ports[0]}?tls=off&insecure=on", f"grpc+tcp:127.0.0.1:{free_port()}"
        _, findings = examine(patient, "--listen", patient.url, "--listen", wrong[0], "--listen", wrong[1])
        told = about(findings, "listeners")
        assert [level for level, _ in told] == ["ok", "error", "error"]
        assert "speaks no gRPC without TLS" in told[1][1]


def test_the_ports_of_others_and_a_daemon_that_is_down(fresh: Daemon, tmp_path: Path) -> None:
    """A stranger's port is an error; a daemon that does not run is a warning with the way to start it."""
    with Daemon(tmp_path / "other", listen=(f"tcp:127.0.0.1:{(port := free_port())}",)):
        _, findings = examine(fresh, "--listen", fresh.url, "--listen", f"tcp:127.0.0.1:{port}")
    told = about(findings, "listeners")
    assert [level for level, _ in told] == ["warning", "ok", "error"]
    assert "not this daemon's" in told[2][1]


def test_a_bad_configuration_is_the_first_finding(fresh: Daemon, tmp_path: Path) -> None:
    """It is told with its place, and what does not depend on it is examined all the same."""
    (tmp_path / "bad.toml").write_text("[runtime]\ncorse = 3\n")
    code, findings = examine(fresh, "--config", str(tmp_path / "bad.toml"))
    assert (code, findings[0]["level"]) == (2, "error")
    assert "cores" in findings[0]["text"]
    assert about(findings, "engines")


def test_people_get_lines(fresh: Daemon) -> None:
    """A line for each finding, its fix below it, and a count at the end."""
    done = fresh.cli("doctor", "--state", str(fresh.state))
    assert "warning  listeners     no daemon answers at any listener\n" in done.stdout
    assert "fix: start it: inferd serve" in done.stdout
    assert done.stdout.rstrip().endswith("warnings")
