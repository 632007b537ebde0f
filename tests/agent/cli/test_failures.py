"""Errors as a user meets them: what happened, what to do, and the exit code."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from inferd import errors as sdk
from inferd_agent.cli.failures import explain
from inferd_agent.errors import ConfigError
from tests.agent.cli.conftest import Run


@pytest.mark.parametrize(
    ("error", "exit_code", "hint"),
    [
        (sdk.ConnectionFailed("refused"), 3, "inferd serve"),
        (sdk.TLSError("not trusted"), 3, "--ca FILE"),
        (sdk.Unauthenticated("who?", status=401), 4, "inferd token create"),
        (sdk.Forbidden("no", status=403), 4, "scopes"),
        (sdk.NotFound("no model", status=404), 5, "inferd models"),
        (sdk.NotReady("loading", status=503), 5, "inferd models"),
        (sdk.InvalidRequest("shape", status=400), 1, ""),
        (sdk.EngineFault("it broke", status=500, request_id="r-1"), 1, "r-1"),
        (sdk.DeadlineExceeded("late"), 1, ""),
        (sdk.BadAddress("odd"), 2, ""),
        (ConfigError("inferd.toml:3: no such key"), 1, ""),
        (FileNotFoundError(2, "No such file or directory", "a.npy"), 1, "a.npy: No such file"),
    ],
)
def test_each_error_has_its_exit_code_and_hint(error: Exception, exit_code: int, hint: str) -> None:
    """The documented exit codes, and a text that says what to do where something can be done."""
    failure = explain(error)
    assert failure is not None
    assert failure.exit_code == exit_code
    assert failure.lines[0].startswith("inferd: ")
    assert hint in "\n".join(failure.lines)


def test_a_socket_that_may_not_be_opened_is_a_denial() -> None:
    """Permission denied on the socket is exit code 4 and about groups, not about a daemon that is down."""
    error = sdk.ConnectionFailed("cannot connect to unix:/s: Permission denied")
    error.__cause__ = PermissionError(13, "Permission denied")
    failure = explain(error)
    assert failure is not None
    assert failure.exit_code == 4
    assert "group" in failure.lines[1]


def test_bugs_are_not_explained() -> None:
    """An error of no known kind is left alone."""
    assert explain(KeyError("x")) is None


@pytest.mark.parametrize("args", [("models",), ("infer", "m", "--input", "x=x.npy"), ("bench", "m")])
def test_no_daemon_is_3(inferd: Run, tmp_path: Path, args: tuple[str, ...]) -> None:
    """Each command that calls a daemon says that there is none and how to start one."""
    done = inferd(*args, "--url", f"unix:{tmp_path}/none.sock")
    assert (done.exit_code, done.out) == (3, "")
    assert "No such file" in done.err
    assert "inferd serve" in done.err


def test_a_refused_connection_is_3(inferd: Run, tmp_path: Path) -> None:
    """A socket that a dead daemon left behind is unreachable, too."""
    path = f"{tmp_path}/dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    done = inferd("models", "--url", f"unix:{path}")
    assert done.exit_code == 3
    assert "refused" in done.err


def test_a_bad_url_is_wrong_usage(inferd: Run) -> None:
    """A URL that cannot be used is exit code 2 and shows what can."""
    done = inferd("models", "--url", "ftp://there")
    assert done.exit_code == 2
    assert "unix:/path" in done.err


def test_the_environment_says_where(inferd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """INFERD_URL is used without --url."""
    monkeypatch.setenv("INFERD_URL", f"unix:{tmp_path}/there.sock")
    assert f"{tmp_path}/there.sock" in inferd("models").err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to change its own user")
def test_a_real_denial_is_4(inferd: Run, tmp_path: Path) -> None:
    """A socket of mode 0600 of another user, as an ordinary user meets it."""
    folder = tmp_path
    while folder != Path("/tmp") and folder != folder.parent:  # the way to the socket is open, the socket is not
        folder.chmod(0o755)
        folder = folder.parent
    path = tmp_path / "s.sock"
    inferd("models", "--url", f"unix:{path}?tls=off")  # loads the command: that user may not read the code
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o600)
        os.seteuid(65534)
        try:
            done = inferd("models", "--url", f"unix:{path}?tls=off")
        finally:
            os.seteuid(0)
    assert done.exit_code == 4
    assert "group" in done.err
